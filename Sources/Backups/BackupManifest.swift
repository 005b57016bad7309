internal import HostSystem

/// What a backup of amorce's own is called.
public enum BackupKey {
    /// `20261126T030000Z.framed.tar.zst`; the manifest has one suffix more, and is written last.
    static let suffix = ".framed.tar.zst"
    static let manifestSuffix = ".manifest"

    static func name(at time: Int64) -> String { UTCStamp(secondsSince1970: time).basic + suffix }

    public static func isFramed(_ key: String) -> Bool { key.hasSuffix(suffix) }
    public static func manifest(of key: String) -> String { key + manifestSuffix }

    /// The backup that a manifest's key belongs to.
    static func backup(ofManifest key: String) -> String? {
        key.hasSuffix(suffix + manifestSuffix) ? String(key.dropLast(manifestSuffix.count)) : nil
    }
}

/// What the first lines of a manifest say of the whole backup.
public struct BackupHeader: Sendable, Equatable {
    static let format = "amorce-backup"
    static let version = 1

    public var app = ""
    public var environment = ""
    /// Seconds since 1970: when the tree was begun to be looked at.
    public var time: Int64 = 0
    /// The folder that it was made of.
    public var source = ""
    public var madeBy = ""
    /// Of the object, in bytes, and how many of them an earlier backup gave.
    public var size: Int64 = 0
    public var copied: Int64 = 0
    public var files = 0
    /// Of the files.
    public var bytes: Int64 = 0

    var text: String {
        let fields = [
            (Self.format, "\(Self.version)"), ("app", Self.escaped(app)), ("environment", Self.escaped(environment)),
            ("time", UTCStamp(secondsSince1970: time).basic), ("source", Self.escaped(source)),
            ("made-by", Self.escaped(madeBy)),
            ("size", "\(size)"), ("copied", "\(copied)"), ("files", "\(files)"), ("bytes", "\(bytes)"),
        ]
        return fields.map { "\($0)\t\($1)\n" }.joined() + "\n"
    }

    private static func escaped(_ text: String) -> String {
        String(decoding: ManifestText.escaped(Array(text.utf8)), as: UTF8.self)
    }

    /// - Parameter next: the lines from the first one on. Lines of other names are passed over: a later version may have more.
    init(_ next: () throws -> [UInt8]?) throws {
        var seen: [String: String] = [:]
        var isFirst = true
        while true {
            guard let line = try next() else { throw ArchiveError.damaged("the manifest ends within its first lines") }
            if line.isEmpty { break }
            let fields = line.split(separator: ManifestText.tab, maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(decoding: fields[0], as: UTF8.self)
            if isFirst && name != Self.format { throw ArchiveError.damaged("it is no manifest of a backup") }
            isFirst = false
            guard fields.count == 2, let value = ManifestText.unescaped(Array(fields[1])), seen.count < 100 else {
                throw ArchiveError.damaged("a line of the manifest's head makes no sense")
            }
            seen[name] = String(decoding: value, as: UTF8.self)
        }
        guard let version = seen[Self.format].flatMap({ Int($0) }) else {
            throw ArchiveError.damaged("the manifest does not tell its version")
        }
        if version != Self.version {
            throw ArchiveError.unsupported(
                "the backup is of format \(version), and this amorce reads format \(Self.version)")
        }
        func number(_ name: String) throws -> Int64 {
            guard let value = seen[name].flatMap({ Int64($0) }), value >= 0 else {
                throw ArchiveError.damaged("the manifest does not tell \(name)")
            }
            return value
        }
        app = seen["app"] ?? ""
        environment = seen["environment"] ?? ""
        source = seen["source"] ?? ""
        madeBy = seen["made-by"] ?? ""
        guard let stamp = seen["time"].flatMap({ NameStamp(in: $0) }) else {
            throw ArchiveError.damaged("the manifest does not tell its time")
        }
        time = stamp.seconds
        size = try number("size")
        copied = try number("copied")
        files = Int(try number("files"))
        bytes = try number("bytes")
    }

    init() {}
}

/// The text of a manifest: fields between tabs, lines, and bytes below 0x20, 0x7f and `%` as `%XX`. docs/backups.md describes it.
enum ManifestText {
    static let tab: UInt8 = 0x09
    private static let digits = Array("0123456789ABCDEF".utf8)

    private static func isPlain(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7f && byte != 0x25 }

    static func escaped(_ bytes: [UInt8]) -> [UInt8] {
        if bytes.allSatisfy(isPlain) { return bytes }
        var result: [UInt8] = []
        for byte in bytes {
            if isPlain(byte) {
                result.append(byte)
            } else {
                result += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return result
    }

    static func unescaped(_ text: [UInt8]) -> [UInt8]? {
        guard text.contains(0x25) else { return text }
        var result: [UInt8] = []
        var position = 0
        while position < text.count {
            if text[position] != 0x25 {
                result.append(text[position])
                position += 1
            } else {
                guard position + 2 < text.count,
                    let byte = [UInt8](hex: String(decoding: text[(position + 1)...(position + 2)], as: UTF8.self))?
                        .first
                else { return nil }
                result.append(byte)
                position += 3
            }
        }
        return result
    }

    /// The fields of one line, taken one after the other.
    struct Fields {
        private let line: [UInt8]
        private var position: Int
        private let end: Int

        init(_ line: [UInt8]) { self.init(line, 0..<line.count) }

        init(_ text: [UInt8], _ range: Range<Int>) {
            line = text
            position = range.lowerBound
            end = range.upperBound
        }

        private func problem() -> ArchiveError { .damaged("a line of the manifest makes no sense") }

        private mutating func take() throws(ArchiveError) -> Range<Int> {
            // Behind the last field the position lies behind the end.
            guard position <= end else { throw problem() }
            var stop = position
            while stop < end && line[stop] != ManifestText.tab { stop += 1 }
            defer { position = stop + 1 }
            return position..<stop
        }

        mutating func kind() throws(ArchiveError) -> UInt8 {
            let field = try take()
            guard field.count == 1 else { throw problem() }
            return line[field.lowerBound]
        }

        mutating func number() throws(ArchiveError) -> Int64 {
            var field = try take()
            let isNegative = !field.isEmpty && line[field.lowerBound] == UInt8(ascii: "-")
            if isNegative { field = field.dropFirst() }
            guard (1...19).contains(field.count) else { throw problem() }
            var value: Int64 = 0
            for index in field {
                let digit = Int64(line[index]) - 0x30
                guard (0...9).contains(digit) else { throw problem() }
                let (product, tooLarge) = value.multipliedReportingOverflow(by: 10)
                // Downwards, so that the least number fits too.
                let (sum, stillTooLarge) = product.addingReportingOverflow(isNegative ? -digit : digit)
                if tooLarge || stillTooLarge { throw problem() }
                value = sum
            }
            return value
        }

        mutating func count() throws(ArchiveError) -> Int {
            guard let value = Int(exactly: try number()), value >= 0 else { throw problem() }
            return value
        }

        mutating func mode() throws(ArchiveError) -> UInt16 {
            let field = try take()
            guard (1...4).contains(field.count) else { throw problem() }
            var value: UInt16 = 0
            for index in field {
                guard (0x30...0x37).contains(line[index]) else { throw problem() }
                value = value * 8 + UInt16(line[index] - 0x30)
            }
            return value
        }

        mutating func sha256() throws(ArchiveError) -> [UInt8] {
            guard let sum = [UInt8](hex: String(decoding: line[try take()], as: UTF8.self)), sum.count == 32 else {
                throw problem()
            }
            return sum
        }

        /// To be called behind the last field.
        func finish() throws(ArchiveError) {
            if position <= end { throw problem() }
        }

        mutating func name() throws(ArchiveError) -> [UInt8] {
            let field = try take()
            guard !field.isEmpty, let name = ManifestText.unescaped(Array(line[field])), !name.contains(0) else {
                throw problem()
            }
            return name
        }
    }
}

/// One member of a frame: what the restore writes, or what it passes over because a later frame has a newer one.
struct ManifestMember: Equatable {
    var member: FrameMember
    var isDead: Bool

    /// The members that a frame's text tells of.
    static func all(in text: [UInt8]) throws(ArchiveError) -> [ManifestMember] {
        var members: [ManifestMember] = []
        var start = 0
        while start < text.count {
            guard let end = text[start...].firstIndex(of: 0x0a) else {
                throw .damaged("a line of the manifest has no end")
            }
            var fields = ManifestText.Fields(text, start..<end)
            members.append(try ManifestMember(&fields))
            start = end + 1
        }
        return members
    }

    init(_ member: FrameMember, isDead: Bool = false) {
        self.member = member
        self.isDead = isDead
    }

    private init(_ fields: inout ManifestText.Fields) throws(ArchiveError) {
        let kind = try fields.kind()
        let mode = try fields.mode()
        let modified = try fields.number()
        let size = try fields.number()
        let start = try fields.count()
        guard size >= 0 else { throw .damaged("a negative size in the manifest") }
        switch kind {
        case UInt8(ascii: "f"), UInt8(ascii: "x"):
            guard let count = Int(exactly: size) else { throw .damaged("a size in the manifest cannot be") }
            member = FrameMember(
                path: try fields.name(), mode: mode, modified: modified, size: size, start: start, count: count)
            isDead = kind == UInt8(ascii: "x")
        case UInt8(ascii: "p"):
            let offset = try fields.number()
            let count = try fields.count()
            member = FrameMember(
                path: try fields.name(), mode: mode, modified: modified, size: size, start: start, fileOffset: offset,
                count: count)
            isDead = false
        default: throw .damaged("a line of the manifest is of no known kind")
        }
        try fields.finish()
        guard member.start <= FrameExtraction.largestFrame, member.count <= FrameExtraction.largestFrame,
            member.fileOffset >= 0, member.fileOffset <= size - Int64(member.count),
            // What has all bytes of a file is no piece.
            (kind == UInt8(ascii: "p")) == member.isPiece
        else { throw .damaged("a line of the manifest makes no sense", entry: Printable.text(member.path)) }
    }

    var text: String {
        let head = "\(String(member.mode, radix: 8))\t\(member.modified)\t\(member.size)\t\(member.start)\t"
        return member.isPiece ? "p\t\(head)\(member.fileOffset)\t\(member.count)\t" : "\(isDead ? "x" : "f")\t\(head)"
    }

    func write(to text: inout [UInt8]) {
        text += self.text.utf8
        text += ManifestText.escaped(member.path)
        text.append(0x0a)
    }
}

/// Reads a manifest from its first line to its last. One thread.
final class ManifestReader {
    /// A frame, and whether it holds files; the others hold links, directories and the end mark, and are there for tar alone.
    struct Frame {
        var frame: FrameExtraction.Frame
        var holdsFiles: Bool
    }

    let header: BackupHeader
    private let lines: ZstdLines
    private var pending: [UInt8]?
    private var frames = 0
    private var files = 0
    private var links = 0
    private var directories = 0
    private var position: Int64 = 0

    init(_ lines: ZstdLines) throws {
        self.lines = lines
        header = try BackupHeader { try lines.next() }
        pending = try lines.next()
    }

    convenience init(_ packed: [UInt8]) throws { try self.init(ZstdLines(packed)) }

    /// The next frame, in the order of the object, which they fill without a gap; nil after the last one.
    func nextFrame() throws -> Frame? {
        guard let line = pending, let kind = line.first, [UInt8(ascii: "F"), UInt8(ascii: "E")].contains(kind) else {
            guard position == header.size else {
                throw ArchiveError.damaged("the manifest's frames end at byte \(position) of \(header.size)")
            }
            return nil
        }
        var fields = ManifestText.Fields(line)
        _ = try fields.kind()
        var frame = FrameExtraction.Frame(
            offset: try fields.number(), length: try fields.count(), unpacked: try fields.count(),
            sha256: try fields.sha256(), files: 0, contents: [])
        let holdsFiles = kind == UInt8(ascii: "F")
        guard frame.offset == position else { throw ArchiveError.damaged("the manifest's frames leave a gap") }
        guard frame.length <= FrameExtraction.largestFrame, frame.unpacked <= FrameExtraction.largestFrame,
            Int64(frame.length) <= header.size - position
        else { throw ArchiveError.damaged("the manifest names a frame that cannot be") }
        if holdsFiles {
            frame.files = try fields.count()
            let size = try fields.count()
            try fields.finish()
            frame.contents = try lines.take(size)
            guard frame.files <= frame.contents.count else {
                throw ArchiveError.damaged("a frame with more files than lines")
            }
        } else {
            try fields.finish()
        }
        position += Int64(frame.length)
        frames += 1
        files += frame.files
        pending = try lines.next()
        return Frame(frame: frame, holdsFiles: holdsFiles)
    }

    /// Links and directories, behind the frames; nil after the last one, when the manifest was checked to be whole.
    func nextLast() throws -> FrameExtraction.Last? {
        guard let line = pending else { throw ArchiveError.damaged("the manifest ends too early") }
        if line.starts(with: "end\t".utf8) {
            try checkEnd(line)
            return nil
        }
        var fields = ManifestText.Fields(line)
        let last: FrameExtraction.Last
        switch try fields.kind() {
        case UInt8(ascii: "L"):
            let modified = try fields.number()
            let target = try fields.name()
            last = .symlink(path: try fields.name(), target: target, modified: modified)
            links += 1
        case UInt8(ascii: "H"):
            let target = try fields.name()
            last = .hardLink(path: try fields.name(), target: target)
            links += 1
        case UInt8(ascii: "D"):
            let mode = try fields.mode()
            let modified = try fields.number()
            last = .directory(path: try fields.name(), mode: mode, modified: modified)
            directories += 1
        case UInt8(ascii: "R"):
            let mode = try fields.mode()
            last = .root(mode: mode, modified: try fields.number())
        default: throw ArchiveError.damaged("a line of the manifest is of no known kind")
        }
        try fields.finish()
        pending = try lines.next()
        return last
    }

    private func checkEnd(_ line: [UInt8]) throws {
        var fields = ManifestText.Fields(Array(line.dropFirst(4)))
        let stated = [try fields.count(), try fields.count(), try fields.count(), try fields.count()]
        try fields.finish()
        guard stated == [frames, files, links, directories], files == header.files, try lines.next() == nil else {
            throw ArchiveError.damaged("the manifest's last line does not fit what stands above it")
        }
    }
}

/// Writes a manifest. The head is made last, when all is known, and put in front as a frame of its own. One thread.
final class ManifestWriter {
    private let text: ZstdText
    private(set) var position: Int64 = 0
    private(set) var bytes: Int64 = 0
    private(set) var files = 0
    private(set) var frames = 0
    private(set) var links = 0
    private(set) var directories = 0

    init() throws { text = try ZstdText() }

    /// A frame that follows the last one in the object.
    func add(_ frame: FrameExtraction.Frame, members: [ManifestMember]) throws {
        var block: [UInt8] = []
        var live = 0
        for member in members {
            member.write(to: &block)
            if member.isDead { continue }
            // A file in pieces is counted by its first one.
            if member.member.fileOffset == 0 { live += 1 }
            bytes += Int64(member.member.count)
        }
        let head = "F\t\(position)\t\(frame.length)\t\(frame.unpacked)\t\(frame.sha256.hex)\t\(live)\t\(block.count)\n"
        try text.append(Array(head.utf8) + block)
        position += Int64(frame.length)
        files += live
        frames += 1
    }

    /// A frame for tar alone.
    func add(headers frame: FrameExtraction.Frame) throws {
        let line = "E\t\(position)\t\(frame.length)\t\(frame.unpacked)\t\(frame.sha256.hex)\n"
        try text.append(Array(line.utf8))
        position += Int64(frame.length)
        frames += 1
    }

    func add(_ last: FrameExtraction.Last) throws {
        var line: [UInt8]
        switch last {
        case .symlink(let path, let target, let modified):
            line =
                "L\t\(modified)\t".utf8 + ManifestText.escaped(target) + [ManifestText.tab] + ManifestText.escaped(path)
            links += 1
        case .hardLink(let path, let target):
            line = "H\t".utf8 + ManifestText.escaped(target) + [ManifestText.tab] + ManifestText.escaped(path)
            links += 1
        case .directory(let path, let mode, let modified):
            line = "D\t\(String(mode, radix: 8))\t\(modified)\t".utf8 + ManifestText.escaped(path)
            directories += 1
        case .root(let mode, let modified): line = Array("R\t\(String(mode, radix: 8))\t\(modified)".utf8)
        }
        line.append(0x0a)
        try text.append(line)
    }

    /// The whole manifest. `size`, `files` and `bytes` of the header are filled in.
    func finish(_ header: BackupHeader) throws -> (packed: [UInt8], header: BackupHeader) {
        try text.append(Array("end\t\(frames)\t\(files)\t\(links)\t\(directories)\n".utf8))
        let body = try text.finishFrame()
        var header = header
        header.size = position
        header.files = files
        header.bytes = bytes
        try text.append(Array(header.text.utf8))
        return (try text.finishFrame() + body, header)
    }
}
