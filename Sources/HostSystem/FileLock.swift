internal import CLinux
internal import Glibc

/// An exclusive flock(2) on a file that is never unlinked, but for a temporary one. The kernel releases it when the process ends, however it ends; what
/// the file holds (pid and activity of the holder) is information only. Close-on-exec, so that a child does not keep it.
public final class FileLock: Sendable {
    public struct Busy: Error, Sendable, CustomStringConvertible {
        /// What the holder wrote about itself.
        public let holder: String
        public var description: String { "another run holds the lock" + (holder.isEmpty ? "" : ": " + holder) }
    }

    private let descriptor: CInt

    /// Takes the lock at once or throws `Busy`.
    public init(path: String, holder: String) throws {
        let opened = amorce_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard opened >= 0 else { throw HostError("open", path, errno: errno) }
        if flock(opened, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            var buffer = [UInt8](repeating: 0, count: 256)
            let count = read(opened, &buffer, buffer.count)
            close(opened)
            guard code == EWOULDBLOCK else { throw HostError("flock", path, errno: code) }
            throw Busy(holder: Printable.text(buffer.prefix(max(0, count)).filter { $0 != 0x0a }))
        }
        descriptor = opened
        let text = Array((holder + "\n").utf8)
        if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.count, 0) }
    }

    /// A lock on a file that goes with it: its holder calls `remove`. Whoever has opened the file before it went finds that out by
    /// its name, and tries again.
    public static func temporary(_ path: String, holder: String) throws -> FileLock {
        while true {
            let lock = try FileLock(path: path, holder: holder)
            var held = stat()
            var named = stat()
            if fstat(lock.descriptor, &held) == 0, lstat(path, &named) == 0, held.st_ino == named.st_ino,
                held.st_dev == named.st_dev
            {
                return lock
            }
        }
    }

    /// Removes the file of a temporary lock while it is held.
    public func remove(_ path: String) { unlink(path) }

    deinit { close(descriptor) }

    /// Whether somebody holds the lock now, by the kernel's own list (proc(5), /proc/locks), so that whoever asks needs no right
    /// to the file and is in nobody's way.
    public static func isHeld(path: String) -> Bool {
        guard let status = try? Files.status(path), let locks = try? FileReading.text("/proc/locks", limit: 4 << 20)
        else {
            return false
        }
        // `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
        return locks.split(separator: "\n").contains { line in
            let words = line.split(separator: " ")
            return words.count > 5 && words[1] == "FLOCK" && words[3] == "WRITE"
                && words[5].split(separator: ":").last == "\(status.inode)"
        }
    }
}
