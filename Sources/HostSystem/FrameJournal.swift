internal import CLinux
internal import Glibc

/// Which frames of a restore are written: a file beside the directory that is filled. It holds for the same backup and the same
/// boot of the machine alone: what a killed process has written stays in the page cache, what a crashed machine has may not
/// be on its disk. Any thread may use it.
///
/// Files that come in pieces are never taken for written: their frames are written again.
public final class FrameJournal: Sendable {
    private let path: String
    private let descriptor: CInt
    private let known: Set<Int>

    /// Goes on with the file where it is of this backup and boot; otherwise begins a new one, and empties the directory. Locks the
    /// file until it is released or the process ends: throws `FileLock.Busy` where another process has it.
    ///
    /// - Parameter identity: whatever tells the backup and the boot from any other; no newline in it.
    public init(_ path: String, identity: String, directory: String) throws {
        let flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC
        let opened = amorce_openat(AT_FDCWD, path, flags, 0o600)
        guard opened >= 0 else { throw HostError("open", path, errno: errno) }
        do {
            known = try Self.begin(opened, path, identity, directory)
        } catch {
            close(opened)
            throw error
        }
        self.path = path
        descriptor = opened
    }

    private static func begin(
        _ descriptor: CInt, _ path: String, _ identity: String, _ directory: String
    ) throws -> Set<Int> {
        if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { throw FileLock.Busy(holder: "a restore into \(Printable.text(directory))") }
            throw HostError("flock", path, errno: errno)
        }
        var own = stat()
        if fstat(descriptor, &own) != 0 { throw HostError("fstat", path, errno: errno) }
        // Removed between open and lock, by a restore that has just ended: another process may have made a new one.
        guard try Files.status(path)?.inode == UInt64(own.st_ino) else {
            throw FileLock.Busy(holder: "a restore into \(Printable.text(directory))")
        }
        let bytes = try FileReading.bytes(path, limit: 64 << 20)
        // The last line counts only with its newline: it may have been cut, and what is left of it is another frame's number.
        let text = bytes[..<(bytes.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0)]
        let lines = text.split(separator: 0x0a).map { String(decoding: $0, as: UTF8.self) }
        if let directory = try filled(directory), lines.first == head(identity, directory) {
            let known = Set(lines.dropFirst().compactMap { Int($0) })
            if !known.isEmpty {
                if text.count < bytes.count && ftruncate(descriptor, off_t(text.count)) != 0 {
                    throw HostError("ftruncate", path, errno: errno)
                }
                return known
            }
        }
        if ftruncate(descriptor, 0) != 0 { throw HostError("ftruncate", path, errno: errno) }
        try Files.removeTree(directory)
        try Files.makeNewDirectory(directory, mode: 0o700)
        guard let made = try Files.status(directory) else { throw HostError("stat", directory, errno: ENOENT) }
        try append(head(identity, made) + "\n", descriptor, path)
        return []
    }

    /// The directory belongs to it: whoever removes it and makes another one has not what the lines tell of.
    private static func head(_ identity: String, _ directory: FileStatus) -> String {
        "amorce-frames \(identity) \(directory.device):\(directory.inode)"
    }

    /// The directory, where there is one with something in it.
    private static func filled(_ path: String) throws(HostError) -> FileStatus? {
        guard let status = try Files.status(path), status.kind == .directory else { return nil }
        return try Files.names(in: path).isEmpty ? nil : status
    }

    deinit {
        // Closing alone would leave it to a child that another thread has forked and that has not reached its exec (flock(2)).
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }

    /// Whether an earlier run has written anything.
    var hasFrames: Bool { !known.isEmpty }

    func contains(_ frame: Int) -> Bool { known.contains(frame) }

    func add(_ frame: Int) throws(HostError) { try Self.append("\(frame)\n", descriptor, path) }

    private static func append(_ text: String, _ descriptor: CInt, _ path: String) throws(HostError) {
        // One write(2) with O_APPEND: lines of several threads do not mix.
        if !Host.write(Array(text.utf8), descriptor: descriptor) { throw HostError("write", path, errno: errno) }
    }

    public func remove() throws(HostError) { try Files.remove(path) }
}
