import TestSupport
import Testing

@testable import Backups
@testable import HostSystem

/// A framed backup made by hand, also such as amorce never makes.
struct ForgedBackup {
    struct File {
        var path: RawTree.Name
        var bytes: [UInt8]
        /// Where the bytes lie in the file, and how large that is; else they are all of it.
        var offset: Int64 = 0
        var size: Int64?
        var isDead = false
        /// Added to what the manifest says of where the bytes begin.
        var shift = 0

        init(_ path: String, _ text: String = "contents", offset: Int64 = 0, size: Int64? = nil) {
            self.init(Array(path.utf8), text, offset: offset, size: size)
        }

        init(_ path: RawTree.Name, _ text: String = "contents", offset: Int64 = 0, size: Int64? = nil) {
            self.path = path
            bytes = Array(text.utf8)
            self.offset = offset
            self.size = size
        }
    }

    static let key = "p/20261126T030000Z.framed.tar.zst"
    var frames: [[File]] = [[File("good")]]
    var last: [FrameExtraction.Last] = []
    /// What the tar has of links and directories; nil: what the manifest says.
    var headers: [UInt8]?
    /// Changes the text of the manifest behind its head.
    var edit: ((String) -> String)?
    var editHeader: ((inout BackupHeader) -> Void)?

    /// As a backup has them: directories deepest first. Of a hard link mode and time are the file's, which may be any.
    static func headers(_ last: [FrameExtraction.Last]) -> [UInt8] {
        var headers: [UInt8] = []
        for entry in last {
            switch entry {
            case .symlink(let path, let target, let modified):
                headers +=
                    TarMember(path: path, kind: .symlink(target: target), mode: 0o777, modified: modified).header
            case .hardLink(let path, let target):
                headers += TarMember(path: path, kind: .hardLink(target: target), mode: 0o640, modified: 7).header
            case .directory, .root: break
            }
        }
        for case .directory(let path, let mode, let modified) in last.reversed() {
            headers += TarMember(path: path, kind: .directory, mode: mode, modified: modified).header
        }
        return headers + TarMember.endMark
    }

    func put(into store: MemoryStore) throws {
        var object: [UInt8] = []
        let packer = try ZstdFramePacker()
        let writer = try ManifestWriter()
        func pack(_ bytes: [UInt8]) throws -> [UInt8] {
            try bytes.withUnsafeBytes { try packer.pack($0, level: 1) }
        }
        func frame(_ packed: [UInt8], _ unpacked: Int) -> FrameExtraction.Frame {
            FrameExtraction.Frame(
                offset: writer.position, length: packed.count, unpacked: unpacked, sha256: Digest.sha256(packed),
                files: 0,
                contents: [])
        }
        for files in frames {
            var tar: [UInt8] = []
            var members: [ManifestMember] = []
            for file in files {
                let size = file.size ?? Int64(file.bytes.count)
                if file.offset == 0 {
                    tar += TarMember(path: file.path, kind: .regular(size: size), mode: 0o644, modified: 5).header
                }
                members.append(
                    ManifestMember(
                        FrameMember(
                            path: file.path, mode: 0o644, modified: 5, size: size, start: tar.count + file.shift,
                            fileOffset: file.offset, count: file.bytes.count), isDead: file.isDead))
                tar += file.bytes
                if file.offset + Int64(file.bytes.count) == size {
                    tar += [UInt8](repeating: 0, count: TarMember.padding(after: size))
                }
            }
            let packed = try pack(tar)
            try writer.add(frame(packed, tar.count), members: members)
            object += packed
        }
        let headers = headers ?? Self.headers(last)
        let end = try pack(headers)
        try writer.add(headers: frame(end, headers.count))
        object += end
        for entry in last { try writer.add(entry) }
        var header = BackupHeader()
        header.time = 1_795_000_000
        var (manifest, made) = try writer.finish(header)
        if edit != nil || editHeader != nil {
            let text = try ManifestTesting.unpack(manifest)
            let body = text[(text.firstRange(of: "\n\n")?.upperBound ?? text.startIndex)...]
            editHeader?(&made)
            manifest = try ManifestTesting.pack(made.text + (edit?(String(body)) ?? String(body)))
        }
        store[Self.key] = object
        store[BackupKey.manifest(of: Self.key)] = manifest
    }
}

enum ManifestTesting {
    static func pack(_ text: String) throws -> [UInt8] { try pack(Array(text.utf8)) }

    static func pack(_ text: [UInt8]) throws -> [UInt8] {
        let packer = try ZstdText()
        try packer.append(text)
        return try packer.finishFrame()
    }

    static func unpack(_ packed: [UInt8]) throws -> String {
        let lines = try ZstdLines(packed)
        var text = ""
        while let line = try lines.next() { text += String(decoding: line, as: UTF8.self) + "\n" }
        return text
    }

    /// All that a manifest says.
    struct Contents: Equatable {
        struct Frame: Equatable {
            var offset: Int64
            var length: Int
            var unpacked: Int
            var sha256: [UInt8]
            var files: Int
            var holdsFiles: Bool
            var members: [ManifestMember]
        }

        var header: BackupHeader
        var frames: [Frame] = []
        var last: [FrameExtraction.Last] = []

        init(_ packed: [UInt8]) throws {
            let reader = try ManifestReader(packed)
            header = reader.header
            while let next = try reader.nextFrame() {
                let frame = next.frame
                frames.append(
                    Frame(
                        offset: frame.offset, length: frame.length, unpacked: frame.unpacked, sha256: frame.sha256,
                        files: frame.files, holdsFiles: next.holdsFiles,
                        members: try ManifestMember.all(in: frame.contents)))
            }
            while let next = try reader.nextLast() { last.append(next) }
        }
    }
}
