internal import CLinux
internal import Glibc

/// Whole small files, bounded.
public enum FileReading {
    public struct TooLarge: Error, Sendable, CustomStringConvertible {
        public let path: String
        public let limit: Int
        public var description: String { "\(Printable.text(path)) is larger than \(ByteCount(limit))" }
    }

    /// Every byte of the file, following symlinks. Throws `HostError`, or `TooLarge` without having read more than `limit`.
    public static func bytes(_ path: String, limit: Int) throws -> [UInt8] {
        let descriptor = amorce_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
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
