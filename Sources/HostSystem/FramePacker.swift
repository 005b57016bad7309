internal import CLinux
internal import Glibc

/// One regular file in a frame, or one piece of a large one.
public struct FrameMember: Sendable, Equatable {
    /// Relative, as bytes.
    public var path: [UInt8]
    /// Permission bits (07777).
    public var mode: UInt16
    /// Nanoseconds since 1970.
    public var modified: Int64
    /// Of the whole file.
    public var size: Int64
    /// Where its bytes begin in the unpacked frame.
    public var start: Int
    /// Which bytes of the file these are: all of them, or a piece.
    public var fileOffset: Int64
    public var count: Int

    public init(
        path: [UInt8], mode: UInt16, modified: Int64, size: Int64, start: Int, fileOffset: Int64 = 0, count: Int
    ) {
        self.path = path
        self.mode = mode
        self.modified = modified
        self.size = size
        self.start = start
        self.fileOffset = fileOffset
        self.count = count
    }

    public var isPiece: Bool { Int64(count) != size }
}

/// A frame as it goes into a backup.
public struct PackedFrame: Sendable {
    public let bytes: [UInt8]
    public let unpacked: Int
    /// Of `bytes`.
    public let sha256: [UInt8]
    public let members: [FrameMember]
    /// Names that were gone by the time they were to be read.
    public let vanished: [[UInt8]]
    /// Files that several names lead to, by their numbers in the tree, whose first name is another file's by now.
    public let detached: [Int]
    /// Names that changed each time they were read: what the frame has of them may be of two versions.
    public let changed: [[UInt8]]
}

/// Reads files and makes frames of them: tar members, compressed. Belongs to one thread.
public final class FramePacker {
    private static let largestWhole: Int64 = 16 << 20

    private let source: SourceTree
    private let tree: ScannedTree
    private let large: LargeFiles
    private let packer: ZstdFramePacker
    private let buffer = PackBuffer(room: 3 << 20)
    private var members: [FrameMember] = []
    private var vanished: [[UInt8]] = []
    private var changed: [[UInt8]] = []
    private var detached: [Int] = []

    public init(_ source: SourceTree, _ tree: ScannedTree, large: LargeFiles) throws {
        self.source = source
        self.tree = tree
        self.large = large
        packer = try ZstdFramePacker()
    }

    /// Whole files, by their numbers in the tree. Throws `HostError` for one that is there and cannot be read.
    public func pack(files: [Int], level: Int) throws -> PackedFrame {
        for index in files { try add(index) }
        return try finish(level: level)
    }

    /// A piece of a large file; the first one begins with the member's header, the last one ends with its padding. Empty where
    /// the file is gone.
    public func pack(pieceOf index: Int, offset: Int64, count: Int, level: Int) throws -> PackedFrame {
        let path = tree.path(index)
        guard
            let file = try large.open(
                index, planned: tree.fileSize(index), { () throws(HostError) in try openFile(path) })
        else {
            vanished.append(path)
            return try finish(level: level)
        }
        if offset == 0, let inode = tree.sharedInode(index), inode != file.inode { detached.append(index) }
        // A file that was cut after its size was promised in the header: the rest is zeros, and it counts as changed.
        let wanted = max(0, min(Int64(count), file.size - offset))
        let isFirst = offset == 0
        // The padding stands right behind the last byte, wherever that is by now: what is planned behind it is empty.
        let isLast = isFirst ? wanted == file.size : wanted > 0 && offset + wanted == file.size
        if isFirst { buffer.append(header(path, file.mode, file.modified, file.size)) }
        let start = buffer.count
        let read = try Self.read(file.descriptor, buffer.extend(by: Int(wanted)), at: offset, shown: source.shown(path))
        if read < Int(wanted) { large.note(changed: index) }
        if wanted > 0 || isFirst {
            members.append(
                FrameMember(
                    path: path, mode: file.mode, modified: file.modified, size: file.size, start: start,
                    fileOffset: offset, count: Int(wanted)))
        }
        if isLast { buffer.appendZeros(TarMember.padding(after: file.size)) }
        if try large.close(index, bytes: Int64(count)) { changed.append(path) }
        return try finish(level: level)
    }

    /// Members without contents, and whatever else is made of headers alone.
    public func pack(headers: [UInt8], level: Int) throws -> PackedFrame {
        buffer.append(headers)
        return try finish(level: level)
    }

    private func finish(level: Int) throws -> PackedFrame {
        defer {
            buffer.removeAll()
            members = []
            vanished = []
            changed = []
            detached = []
        }
        let bytes = buffer.count == 0 ? [] : try packer.pack(buffer.bytes, level: level)
        return PackedFrame(
            bytes: bytes, unpacked: buffer.count, sha256: bytes.withUnsafeBytes { Digest.sha256(whole: $0) },
            members: members, vanished: vanished, detached: detached, changed: changed)
    }

    /// Reads a file that stays the same while it is read, in three attempts; then it is taken as it came, and said to be so.
    private func add(_ index: Int) throws {
        let path = tree.path(index)
        let begin = buffer.count
        for attempt in 1...3 {
            buffer.shorten(to: begin)
            guard let descriptor = try openFile(path) else {
                vanished.append(path)
                return
            }
            defer { close(descriptor) }
            let before = try Self.status(descriptor, source.shown(path))
            // One that has become a large file since it was planned is taken as far as one frame goes.
            let size = min(before.size, Self.largestWhole)
            buffer.append(header(path, UInt16(before.mode), before.modified, size))
            let start = buffer.count
            let read = try Self.read(descriptor, buffer.extend(by: Int(size)), at: 0, shown: source.shown(path))
            let after = try Self.status(descriptor, source.shown(path))
            let isSame = read == Int(size) && after.modified == before.modified && after.size == size
            if !isSame && attempt < 3 { continue }
            if !isSame { changed.append(path) }
            if let inode = tree.sharedInode(index), inode != before.inode { detached.append(index) }
            buffer.appendZeros(TarMember.padding(after: size))
            members.append(
                FrameMember(
                    path: path, mode: UInt16(before.mode), modified: before.modified, size: size, start: start,
                    count: Int(size)))
            return
        }
    }

    private func header(_ path: [UInt8], _ mode: UInt16, _ modified: Int64, _ size: Int64) -> [UInt8] {
        TarMember(path: path, kind: .regular(size: size), mode: mode, modified: modified).header
    }

    /// Nil where no file has that name any more.
    private func openFile(_ path: [UInt8]) throws(HostError) -> CInt? {
        let descriptor = source.open(path, O_RDONLY | O_NOFOLLOW)
        switch descriptor {
        case 0...: break
        // A name that has become a symlink, a socket, or lies below one, is no file of that name either.
        case -ENOENT, -ENOTDIR, -ELOOP, -ENXIO, -EXDEV: return nil
        default: throw HostError("open", source.shown(path), errno: -descriptor)
        }
        var status = stat()
        if fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG { return descriptor }
        close(descriptor)
        return nil
    }

    static func status(_ descriptor: CInt, _ shown: @autoclosure () -> String) throws(HostError) -> FileStatus {
        var raw = stat()
        if fstat(descriptor, &raw) != 0 {
            let code = errno
            throw HostError("fstat", shown(), errno: code)
        }
        return FileStatus(raw)
    }

    /// Fills the room, with zeros where the file ends before it; returns how many bytes came.
    private static func read(
        _ descriptor: CInt, _ room: UnsafeMutableRawBufferPointer, at offset: Int64,
        shown: @autoclosure () -> String
    ) throws(HostError) -> Int {
        let done = try Files.read(descriptor, into: room, at: offset, shown: shown())
        if done < room.count, let base = room.baseAddress { memset(base + done, 0, room.count - done) }
        return done
    }
}

/// The large files that several threads read pieces of: each is opened once, so that all pieces are of one file, whatever has
/// its name by then. Any thread may use it.
public final class LargeFiles: @unchecked Sendable {
    struct File {
        let descriptor: CInt
        let mode: UInt16
        let modified: Int64
        let inode: UInt64
        /// What is promised in its header: no more than was planned, so that the pieces hold it.
        let size: Int64
    }

    private struct State {
        let file: File?
        let planned: Int64
        var left: Int64
        var isChanged: Bool
    }

    private let monitor = Monitor()
    private var states: [Int: State] = [:]

    public init() {}

    deinit { for state in states.values { if let file = state.file { Glibc.close(file.descriptor) } } }

    /// - Parameter planned: its size when it was divided into pieces.
    func open(_ index: Int, planned: Int64, _ openFile: () throws(HostError) -> CInt?) throws -> File? {
        try monitor.locked {
            if let state = states[index] { return state.file }
            guard let descriptor = try openFile() else {
                states[index] = State(file: nil, planned: planned, left: planned, isChanged: false)
                return nil
            }
            let status = try FramePacker.status(descriptor, "a large file")
            let file = File(
                descriptor: descriptor, mode: UInt16(status.mode), modified: status.modified, inode: status.inode,
                size: min(status.size, planned))
            states[index] = State(file: file, planned: planned, left: planned, isChanged: status.size != planned)
            return file
        }
    }

    func note(changed index: Int) { monitor.locked { states[index]?.isChanged = true } }

    /// One piece is done with. With the last one the file is closed; true then where it changed meanwhile.
    func close(_ index: Int, bytes: Int64) throws -> Bool {
        try monitor.locked {
            guard var state = states[index], let file = state.file else { return false }
            state.left -= bytes
            states[index] = state
            if state.left > 0 { return false }
            defer {
                Glibc.close(file.descriptor)
                states[index] = nil
            }
            let now = try FramePacker.status(file.descriptor, "a large file")
            return state.isChanged || now.modified != file.modified || now.size < file.size
        }
    }
}
