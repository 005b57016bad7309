internal import CloudPlatform
internal import ConfigTemplates
internal import HostSystem

/// Renders every template with the values of this environment. Nothing is written: the result is bytes, and every problem of
/// every template comes in one report.
struct RenderConfiguration {
    /// What templates may know of the release that they are rendered for.
    struct ReleaseFacts {
        let identifier: String
        let token: String
    }

    struct Refused: Error, CustomStringConvertible {
        let problems: [String]
        var description: String { problems.joined(separator: "\n") }
    }

    let layout: HostLayout
    let settings: Settings
    let identity: InstanceIdentity
    let version: String
    let log: Log
    private static let sizeLimit = 4 << 20

    func render(for release: ReleaseFacts) throws -> [RenderedFile] {
        let values = context(release)
        var files: [RenderedFile] = []
        var problems: [String] = []
        for item in try TemplateTree(layout: layout).items(sets: settings.templates) {
            do {
                files.append(try render(item, values, release))
            } catch let found as TemplateProblems {
                problems += found.problems.map(\.description)
            } catch let refused as Refused {
                problems += refused.problems
            }
        }
        problems += mentions(in: files)
        if !problems.isEmpty { throw Refused(problems: problems) }
        return files
    }

    private func render(
        _ item: TemplateTree.Item, _ values: TemplateValue, _ release: ReleaseFacts
    ) throws -> RenderedFile {
        let isInRelease = item.target.hasPrefix(TemplateTree.releaseFolder)
        let inside = String(item.target.dropFirst(TemplateTree.releaseFolder.count))
        let path =
            isInRelease ? HostLayout().release(settings.app, release.identifier) + "/" + inside : "/" + item.target
        let place: RenderedFile.Place = isInRelease ? .release(inside) : .host
        switch item.source {
        case .symlink(let target):
            return RenderedFile(
                place: place, entry: ConfigurationEntry(path: path, target: target), bytes: [],
                template: item.shown)
        case .plain(let source):
            let bytes = try FileReading.bytes(source, limit: Self.sizeLimit)
            return try file(place, path, bytes, [], mode: item.mode, owner: nil, item)
        case .template(let source):
            let template = try Template(name: source, source: try FileReading.bytes(source, limit: Self.sizeLimit))
            let text = try template.render(values)
            let mode = template.mode ?? item.mode
            if !text.secretRanges.isEmpty && mode & 0o004 != 0 {
                log.warning(
                    "\(path) holds a secret and is readable by every user; give \(source) a header with mode=0640")
            }
            return try file(place, path, text.bytes, text.secretRanges, mode: mode, owner: template.owner, item)
        }
    }

    private func file(
        _ place: RenderedFile.Place, _ path: String, _ bytes: [UInt8], _ secrets: [Range<Int>], mode: UInt32,
        owner: String?, _ item: TemplateTree.Item
    ) throws -> RenderedFile {
        // Files of the release belong to whom the release belongs to; files of the host to root.
        let name = owner ?? (place == .host ? nil : settings.owner)
        var account = (owner: Host.userIdentifier, group: Host.groupIdentifier)
        if let name {
            guard let found = Accounts.resolve(name, layout: layout) else {
                throw Refused(problems: ["\(item.shown): there is no user or group \(Printable.text(name, limit: 80))"])
            }
            account = found
        }
        let entry = ConfigurationEntry(
            path: path, mode: mode, owner: account.owner, group: account.group, digest: Digest.sha256(bytes).hex,
            secretRanges: secrets)
        return RenderedFile(place: place, entry: entry, bytes: bytes, template: item.shown)
    }

    private func context(_ release: ReleaseFacts) -> TemplateValue {
        var map: [String: TemplateValue] = [:]
        if case .map(let own) = settings.values { map = own }
        let folder = layout.release(settings.app, release.identifier)
        map["app"] = .string(settings.app)
        map["environment"] = .string(settings.environment)
        map["amorce"] = .map([
            "version": .string(version), "share": .string(layout.path("/usr/share/amorce")),
            "health-file": .string(layout.healthFile),
        ])
        map["release"] = .map([
            "id": .string(release.identifier), "path": .string(folder), "token": .string(release.token),
            "root": .string(settings.documentRoot.isEmpty ? folder : folder + "/" + settings.documentRoot),
        ])
        map["site"] = .map(["path": .string(layout.site(settings.app)), "shared": .string(layout.shared(settings.app))])
        func known(_ text: String?) -> TemplateValue { text.map { .string($0) } ?? .null }
        map["instance"] = .map([
            "id": .string(identity.id), "region": known(identity.region), "zone": known(identity.zone),
            "address": known(identity.address), "type": known(identity.type), "image": known(identity.image),
            "tags": .map(identity.tags.mapValues { .string($0) }),
        ])
        return .map(map)
    }

    /// A copy of production must not point at production: what only production may use is in no rendered file.
    private func mentions(in files: [RenderedFile]) -> [String] {
        files.flatMap { file in
            settings.neverMention.filter { !file.bytes.ranges(of: Array($0.utf8)).isEmpty }.map {
                "\(file.entry.path) mentions \(Printable.text($0, limit: 80)), which guard.never-mention forbids here"
            }
        }
    }
}

extension ConfigurationEntry {
    /// The text of its bytes for a person: every secret is a mark of constant length.
    func shownText(_ bytes: [UInt8]) -> String {
        var result: [UInt8] = []
        var position = 0
        for range in secretRanges.sorted(by: { $0.lowerBound < $1.lowerBound })
        where range.lowerBound >= position && range.upperBound <= bytes.count {
            result += bytes[position..<range.lowerBound]
            result += Array("(secret)".utf8)
            position = range.upperBound
        }
        return String(decoding: result + bytes[position...], as: UTF8.self)
    }
}
