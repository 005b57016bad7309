internal import HostSystem

/// One name that the source and the release differ in.
public struct RsyncChange: Sendable, Equatable, Codable {
    public enum Kind: String, Sendable, Codable {
        case created, changed, deleted
        /// Mode or owner alone.
        case metadata
    }

    public let kind: Kind
    /// For people: relative to the release, control bytes escaped, a slash behind a directory.
    public let path: String

    public init(kind: Kind, path: String) {
        self.kind = kind
        self.path = path
    }
}

/// What a sync would do, or did.
public struct RsyncPlan: Sendable, Equatable, Codable {
    public var created = 0
    public var changed = 0
    public var deleted = 0
    public var metadataOnly = 0
    /// Of the files that are created or changed, whole; less may pass over the wire.
    public var bytes: Int64 = 0
    /// In rsync's order; at most `RsyncPlan.shownEntries`, the counts are of all.
    public var entries: [RsyncChange] = []
    /// Files and symlinks in the source.
    public var totalFiles = 0
    /// Entries of the release before the sync, which the limit is a share of.
    public var existing = 0
    /// More than this is refused.
    public var deletionsAllowed = 0

    public static let shownEntries = 10_000

    public init() {}

    public var isEmpty: Bool { created == 0 && changed == 0 && deleted == 0 && metadataOnly == 0 }

    /// `3 new, 2 changed, 1 deleted, 12 kB`
    public var summary: String {
        var parts: [String] = []
        if created > 0 { parts.append("\(created) new") }
        if changed > 0 { parts.append("\(changed) changed") }
        if metadataOnly > 0 { parts.append("\(metadataOnly) with other modes or times") }
        if deleted > 0 { parts.append("\(deleted) deleted") }
        return (parts + (bytes > 0 ? ["\(ByteCount(bytes))"] : [])).joined(separator: ", ")
    }

    public var exceedsLimit: Bool { deleted > deletionsAllowed }
}

/// One line of `--out-format`: `%i:%l:%n` behind the mark.
struct RsyncItem: Equatable {
    /// Eleven characters, described in rsync(1) under --itemize-changes.
    let code: [UInt8]
    let size: Int64
    /// Relative, as bytes, without the slash behind a directory.
    let name: [UInt8]
    let isDirectory: Bool

    init?(_ line: ArraySlice<UInt8>) {
        let mark = RsyncCommand.mark.utf8
        guard line.starts(with: mark) else { return nil }
        let rest = line.dropFirst(mark.count)
        guard rest.count > 12, rest[rest.startIndex + 11] == 0x3a else { return nil }
        code = Array(rest.prefix(11))
        let tail = rest.dropFirst(12)
        guard let colon = tail.firstIndex(of: 0x3a),
            let size = Int64(String(decoding: tail[..<colon], as: UTF8.self))
        else { return nil }
        self.size = size
        var name = Self.unescaped(tail[(colon + 1)...])
        isDirectory = name.last == 0x2f
        while name.count > 1 && name.last == 0x2f { name.removeLast() }
        self.name = name
    }

    /// In the C locale rsync writes every byte that is no printable ASCII as `\#ooo`, and a backslash too where such a
    /// sequence would follow it: the bytes come back exactly (rsync(1), --8-bit-output).
    static func unescaped(_ text: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var index = text.startIndex
        while index < text.endIndex {
            let digits = text[index...].dropFirst(2).prefix(3)
            if text[index] == 0x5c, text[index...].dropFirst().first == 0x23, digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                result.append(value)
                index += 5
            } else {
                result.append(text[index])
                index += 1
            }
        }
        return result
    }

    private static let deletion = Array("*deleting".utf8)

    /// Nil for what is no change worth telling: the times of a directory, which follow from what is done in it.
    var kind: RsyncChange.Kind? {
        if code.starts(with: Self.deletion) { return .deleted }
        let attributes = code.dropFirst(2)
        if attributes.allSatisfy({ $0 == 0x2b }) { return .created }
        if code[0] == 0x2e {
            // `.d..t......` is a directory whose time alone differs.
            let marks = attributes.filter { $0 != 0x2e && $0 != 0x20 && !(isDirectory && $0 | 0x20 == 0x74) }
            return marks.isEmpty ? nil : .metadata
        }
        return .changed
    }

    /// A regular file that rsync would change in place, in the inode that a hard link shares with another release. What
    /// has new bytes is written to a new file and renamed.
    var isChangedInPlace: Bool { code[0] == 0x2e && code[1] == 0x66 && kind == .metadata }
    /// Bytes have to come for it.
    var isTransfer: Bool { code[0] == 0x3e || code[0] == 0x3c }
}

/// Reads rsync's standard output piece by piece: itemised changes, progress lines (which end in a carriage return), the
/// statistics at the end, and remarks. Itemised names never hold a line break, so none can be taken for another line.
struct RsyncOutput {
    private(set) var items: [RsyncItem] = []
    /// From the statistics; nil when there were none.
    private(set) var sourceFiles: Int?
    /// Of progress lines.
    private(set) var progress = Progress()
    private(set) var unsafeLinks = 0
    private var pending: [UInt8] = []

    /// True when the progress or the items have moved on.
    mutating func feed(_ bytes: ArraySlice<UInt8>) -> Bool {
        var isNew = false
        var start = bytes.startIndex
        for index in bytes.indices where bytes[index] == 0x0a || bytes[index] == 0x0d {
            pending += bytes[start..<index]
            if take(pending[...]) { isNew = true }
            pending.removeAll(keepingCapacity: true)
            start = index + 1
        }
        // No honest line is longer: a path is at most 4096 bytes, each of them escaped to five.
        if pending.count < 64 << 10 { pending += bytes[start...] }
        return isNew
    }

    private mutating func take(_ line: ArraySlice<UInt8>) -> Bool {
        if let item = RsyncItem(line) {
            items.append(item)
            return true
        }
        if line.first == 0x20 { return takeProgress(line) }
        if line.starts(with: Self.fileCount) {
            sourceFiles = Self.sourceFiles(String(decoding: line.dropFirst(Self.fileCount.count), as: UTF8.self))
        } else if line.starts(with: Self.unsafeLink) {
            unsafeLinks += 1
        }
        return false
    }

    private static let fileCount = Array("Number of files: ".utf8)
    private static let unsafeLink = Array("ignoring unsafe symlink".utf8)

    /// `14 (reg: 7, dir: 3, link: 3, special: 1)`: what is no directory and no device counts.
    static func sourceFiles(_ text: String) -> Int? {
        let words = text.split { " (),".contains($0) }.map(String.init)
        guard let total = words.first.flatMap({ Int($0) }) else { return nil }
        if words.count == 1 { return total }
        return zip(words, words.dropFirst()).reduce(0) { sum, pair in
            sum + (pair.0 == "reg:" || pair.0 == "link:" ? Int(pair.1) ?? 0 : 0)
        }
    }

    /// `         32768 100%   31.25MB/s    0:00:00 (xfr#5, to-chk=169/396)`
    private mutating func takeProgress(_ line: ArraySlice<UInt8>) -> Bool {
        let words = line.split(separator: 0x20, maxSplits: 4)
        guard words.count >= 3, words[1].last == 0x25, let bytes = Int64(String(decoding: words[0], as: UTF8.self))
        else {
            return false
        }
        progress.bytes = bytes
        if let hash = line.lastIndex(of: 0x23) {
            progress.items =
                Int(String(decoding: line[(hash + 1)...].prefix { $0 != 0x2c }, as: UTF8.self)) ?? progress.items
        }
        return true
    }
}

/// Counts what was done or would be done, each name once however many attempts touched it.
struct RsyncTally {
    private var kinds: [[UInt8]: RsyncChange.Kind] = [:]
    private var plan = RsyncPlan()

    mutating func add(_ items: [RsyncItem]) {
        for item in items {
            // The release's own folder is amorce's: its mode is set when the release is complete.
            guard let kind = item.kind, item.name != Array(".".utf8) else { continue }
            let isNew = kinds.updateValue(kind, forKey: item.name) == nil
            guard isNew else { continue }
            switch kind {
            case .created: plan.created += 1
            case .changed: plan.changed += 1
            case .deleted: plan.deleted += 1
            case .metadata: plan.metadataOnly += 1
            }
            if item.isTransfer { plan.bytes += item.size }
            if plan.entries.count < RsyncPlan.shownEntries {
                let path = Printable.text(item.name, limit: 4096) + (item.isDirectory ? "/" : "")
                plan.entries.append(RsyncChange(kind: kind, path: path))
            }
        }
    }

    func plan(totalFiles: Int, existing: Int, deletionsAllowed: Int) -> RsyncPlan {
        var result = plan
        result.totalFiles = totalFiles
        result.existing = existing
        result.deletionsAllowed = deletionsAllowed
        return result
    }
}
