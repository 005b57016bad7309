internal import ConfigTemplates
internal import HostSystem

/// The template files of a front: the shipped sets that the settings name, in their order, and the site's own on top. A file
/// of the site takes the place of a shipped one for the same target, with or without the suffix `.mustache`.
struct TemplateTree {
    enum Source: Equatable {
        case template(String)
        case plain(String)
        case symlink(target: String)
    }

    struct Item: Equatable {
        /// What it becomes, relative to the root of the host, or below `release/` to the root of the release.
        let target: String
        let source: Source
        let mode: UInt32

        /// For messages: the path below the tree, as its author knows it.
        var shown: String {
            switch source {
            case .template(let path), .plain(let path): path
            case .symlink: target
            }
        }
    }

    struct UnknownSet: Error, CustomStringConvertible {
        let name: String
        let known: [String]
        var description: String {
            "there is no template set `\(name)`"
                + (Spelling.nearest(to: name, among: known).map { "; did you mean `\($0)`?" }
                    ?? "; there are: " + known.joined(separator: ", "))
        }
    }

    static let suffix = ".mustache"
    static let defaultsFile = "defaults.yaml"
    static let releaseFolder = "release/"

    let layout: HostLayout

    /// The file of a set that holds the values its templates fall back to.
    func defaults(of set: String) throws -> String {
        let folder = layout.shippedTemplates + "/" + set
        if !Files.exists(folder) {
            // `www` holds pages, not templates of a host's files.
            throw UnknownSet(name: set, known: try Files.names(in: layout.shippedTemplates))
        }
        return folder + "/" + Self.defaultsFile
    }

    /// Sorted by target.
    func items(sets: [String]) throws -> [Item] {
        var items: [String: Item] = [:]
        for set in sets { try collect(layout.shippedTemplates + "/" + set, "", isSet: true, into: &items) }
        try collect(layout.templates, "", isSet: false, into: &items)
        return items.values.sorted { $0.target < $1.target }
    }

    private func collect(_ folder: String, _ relative: String, isSet: Bool, into items: inout [String: Item]) throws {
        for name in try Files.names(in: folder) {
            let path = folder + "/" + name
            let below = relative + name
            if isSet && below == Self.defaultsFile { continue }
            guard let status = try Files.status(path) else { continue }
            switch status.kind {
            case .directory: try collect(path, below + "/", isSet: isSet, into: &items)
            case .symlink:
                items[below] = Item(target: below, source: .symlink(target: Files.linkTarget(path) ?? ""), mode: 0o777)
            case .regular:
                // What editors and package tools leave behind is no template.
                if name.hasSuffix("~") || name.hasSuffix(".swp") || name.contains(".dpkg-") { continue }
                let isTemplate = name.hasSuffix(Self.suffix)
                let target = isTemplate ? String(below.dropLast(Self.suffix.count)) : below
                items[target] = Item(
                    target: target, source: isTemplate ? .template(path) : .plain(path), mode: status.mode & 0o777)
            case .other: continue
            }
        }
    }
}
