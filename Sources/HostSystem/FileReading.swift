internal import CLinux
internal import Glibc

/// Whole small files, bounded.
public enum FileReading {
    /// Major 1, minor 3 (Linux, Documentation/admin-guide/devices.txt).
    private static let nullDevice: dev_t = 0x103

    public struct TooLarge: Error, Sendable, CustomStringConvertible {
        public let path: String
        public let limit: Int
        public var description: String { "\(Printable.text(path)) is larger than \(ByteCount(limit))" }
    }

    /// It is a FIFO, a socket or a device: reading it might wait for ever.
    public struct NotRegular: Error, Sendable, Equatable, CustomStringConvertible {
        public let path: String
        public var description: String { "\(Printable.text(path)) is no regular file" }
    }

    /// Every byte of the file, following symlinks. Throws `HostError`, `NotRegular`, or `TooLarge` without having read more than
    /// `limit`.
    ///
    /// Whoever writes `/dev/stdin`, or a shell's `<(…)`, means what is there: below /dev and /proc anything is read, until it
    /// ends. The null device is an empty file everywhere: a symlink to it is how a file is masked.
    public static func bytes(_ path: String, limit: Int) throws -> [UInt8] {
        let isMeant = path.hasPrefix("/dev/") || path.hasPrefix("/proc/")
        // O_NONBLOCK: opening a FIFO must not wait for its writer. It changes nothing for a regular file.
        let flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | (isMeant ? 0 : O_NONBLOCK)
        let descriptor = amorce_openat(AT_FDCWD, path, flags, 0)
        guard descriptor >= 0 else {
            let code = errno
            // A socket.
            if code == ENXIO { throw NotRegular(path: path) }
            throw HostError("open", path, errno: code)
        }
        defer { close(descriptor) }
        if !isMeant {
            var status = stat()
            if fstat(descriptor, &status) != 0 { throw HostError("fstat", path, errno: errno) }
            switch status.st_mode & S_IFMT {
            // Reading a directory says what it is.
            case S_IFREG, S_IFDIR: break
            case S_IFCHR where status.st_rdev == nullDevice: return []
            default: throw NotRegular(path: path)
            }
        }
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw HostError("read", path, errno: errno)
            }
            if count == 0 { return result }
            if result.count + count > limit { throw TooLarge(path: path, limit: limit) }
            result.append(contentsOf: buffer.prefix(count))
        }
    }

    /// The same as text; bytes that are not UTF-8 are replaced.
    public static func text(_ path: String, limit: Int) throws -> String {
        String(decoding: try bytes(path, limit: limit), as: UTF8.self)
    }

    /// Nil where there is no such file.
    public static func bytesIfPresent(_ path: String, limit: Int) throws -> [UInt8]? {
        do {
            return try bytes(path, limit: limit)
        } catch let error as HostError where error.isAbsent {
            return nil
        }
    }
}
