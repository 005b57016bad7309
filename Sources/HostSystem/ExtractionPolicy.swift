/// What is to be made of one entry. A pure value: it counts, but looks at no file; what depends on earlier entries of the
/// archive (duplicates, links) is the tree writer's to see.
///
/// - Kept: regular files, directories, symlinks that stay inside, hard links. Refused: everything else.
/// - Names as bytes; `.` and empty components drop out; `..` and absolute names are refused.
/// - Modes: set-id and sticky bits go; directories are at least 0700 and files 0600. The stored owners are not looked at.
/// - Symlinks: relative, and lexically inside. The tree writer follows them all once more when the tree is complete.
struct ExtractionPolicy {
    enum Decision: Equatable {
        case make(Member)
        /// The root's own entry, or one that stripping leaves nothing of.
        case skip(isStripped: Bool)
    }

    struct Member: Equatable {
        enum Kind: Equatable {
            case regular, directory
            case symlink(target: [UInt8])
            /// `target` is a path like the member's own.
            case hardLink(target: [UInt8])

            var name: String {
                switch self {
                case .regular, .hardLink: "file"
                case .directory: "directory"
                case .symlink: "symlink"
                }
            }
        }

        /// Relative to the root: components with single slashes between them.
        var path: [UInt8]
        var kind: Kind
        var mode: UInt32
    }

    let limits: ExtractionLimits
    let stripComponents: Int
    private(set) var entries = 0
    private(set) var bytes: Int64 = 0

    init(limits: ExtractionLimits = ExtractionLimits(), stripComponents: Int = 0) {
        self.limits = limits
        self.stripComponents = stripComponents
    }

    mutating func decide(_ entry: ArchiveEntry) throws(ArchiveError) -> Decision {
        entries += 1
        if entries > limits.entries { throw .limit(.entries(limits.entries)) }
        if case .special(let kind) = entry.kind { throw .refused(.specialFile(kind), entry: entry.shownName) }
        if case .hardLink = entry.kind, entry.size > 0 { throw .refused(.hardLinkWithData, entry: entry.shownName) }
        if entry.size < 0 { throw .damaged("a negative size", entry: entry.shownName) }
        let sum = bytes.addingReportingOverflow(entry.size)
        if sum.overflow || sum.partialValue > limits.bytes.value {
            throw .limit(.bytes(limits.bytes), entry: entry.shownName)
        }
        bytes = sum.partialValue

        guard let path = try path(entry.name, of: entry) else { return .skip(isStripped: true) }
        if path.isEmpty {
            if entry.kind == .directory { return .skip(isStripped: false) }
            throw .refused(.emptyName, entry: entry.shownName)
        }
        switch entry.kind {
        case .regular: return .make(Member(path: path, kind: .regular, mode: entry.mode & 0o777 | 0o600))
        case .directory: return .make(Member(path: path, kind: .directory, mode: entry.mode & 0o777 | 0o700))
        case .symlink(let target):
            try check(target, from: path, of: entry)
            return .make(Member(path: path, kind: .symlink(target: target), mode: 0o777))
        case .hardLink(let target):
            if target.isEmpty { throw .refused(.emptyLinkTarget, entry: entry.shownName) }
            guard let other = try self.path(target, of: entry), !other.isEmpty else {
                throw .refused(.hardLinkToNoEarlierFile, entry: entry.shownName)
            }
            return .make(Member(path: path, kind: .hardLink(target: other), mode: entry.mode))
        case .special: throw .refused(.specialFile("special file"), entry: entry.shownName)
        }
    }

    /// Whether a path is one that a backup of amorce's own may hold: relative, normalised, inside, within the limits.
    static func isPlain(_ path: [UInt8], limits: ExtractionLimits) -> Bool {
        if path.isEmpty || path.count > limits.pathLength { return false }
        var start = 0
        var depth = 0
        for position in 0...path.count {
            guard position == path.count || path[position] == 0x2f else {
                if path[position] == 0 { return false }
                continue
            }
            let length = position - start
            if length == 0 || length > limits.nameLength { return false }
            if path[start] == 0x2e && (length == 1 || length == 2 && path[start + 1] == 0x2e) { return false }
            depth += 1
            start = position + 1
        }
        return depth <= limits.depth
    }

    /// Why a symlink of that path may not have that target, or nil: relative, and lexically inside.
    static func refusal(ofTarget target: [UInt8], from path: [UInt8]) -> RefusedEntry? {
        if target.isEmpty { return .emptyLinkTarget }
        if target[0] == UInt8(ascii: "/") { return .absoluteLinkTarget }
        var depth = path.count(where: { $0 == UInt8(ascii: "/") })
        for part in target.split(separator: UInt8(ascii: "/")) {
            if part.elementsEqual("..".utf8) {
                depth -= 1
                if depth < 0 { return .linkOutside }
            } else if !part.elementsEqual(".".utf8) {
                depth += 1
            }
        }
        return nil
    }

    /// The normalised path; nil when stripping leaves nothing.
    private func path(_ name: [UInt8], of entry: ArchiveEntry) throws(ArchiveError) -> [UInt8]? {
        if name.isEmpty { throw .refused(.emptyName, entry: entry.shownName) }
        if name[0] == UInt8(ascii: "/") { throw .refused(.absoluteName, entry: entry.shownName) }
        if name.contains(0) { throw .damaged("a name with a NUL byte", entry: entry.shownName) }
        let parts = name.split(separator: UInt8(ascii: "/"))
        if parts.contains(where: { $0.elementsEqual("..".utf8) }) {
            throw .refused(.parentInName, entry: entry.shownName)
        }
        // As GNU tar counts: a leading `.` is a component too.
        if stripComponents > 0 && parts.count <= stripComponents { return nil }
        var result: [UInt8] = []
        result.reserveCapacity(name.count)
        var depth = 0
        for part in parts.dropFirst(stripComponents) where !part.elementsEqual(".".utf8) {
            if part.count > limits.nameLength { throw .limit(.nameLength(limits.nameLength), entry: entry.shownName) }
            depth += 1
            if !result.isEmpty { result.append(UInt8(ascii: "/")) }
            result.append(contentsOf: part)
        }
        if depth > limits.depth { throw .limit(.depth(limits.depth), entry: entry.shownName) }
        if result.count > limits.pathLength { throw .limit(.pathLength(limits.pathLength), entry: entry.shownName) }
        return result
    }

    private func check(_ target: [UInt8], from path: [UInt8], of entry: ArchiveEntry) throws(ArchiveError) {
        if let refusal = Self.refusal(ofTarget: target, from: path) { throw .refused(refusal, entry: entry.shownName) }
        if target.contains(0) { throw .damaged("a link target with a NUL byte", entry: entry.shownName) }
        if target.count > limits.pathLength { throw .limit(.linkLength(limits.pathLength), entry: entry.shownName) }
    }
}
