internal import CLinux
internal import Glibc

/// A system call that failed: which call, on what, and the errno it left. `errno` is read by the caller at once, before any
/// other call can change it.
public struct HostError: Error, Sendable, Equatable, CustomStringConvertible {
    public let call: String
    public let path: String
    public let errno: CInt

    public init(_ call: String, _ path: String, errno: CInt) {
        self.call = call
        self.path = path
        self.errno = errno
    }

    /// The kernel's own words for `errno`, as in errno(3).
    public var reason: String { Errno.text(errno) }

    public var description: String { "\(call) \(Printable.text(path)): \(reason)" }

    /// The file system has no room left for bytes, inodes or this user's quota.
    public var isOutOfRoom: Bool { errno == ENOSPC || errno == EDQUOT }
    public var isOtherFileSystem: Bool { errno == EXDEV }
    public var isAbsent: Bool { errno == ENOENT || errno == ENOTDIR }
    public var isPermission: Bool { errno == EACCES || errno == EPERM || errno == EROFS }
}

public enum Errno {
    public static func text(_ code: CInt) -> String {
        var buffer = [CChar](repeating: 0, count: 128)
        amorce_error_text(code, &buffer, buffer.count)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Text from outside (a file name, a server's answer) made safe for a terminal and a log: one line, control bytes escaped,
/// bounded in length.
public enum Printable {
    public static func text(_ raw: String, limit: Int = 400) -> String {
        var result = ""
        var count = 0
        for scalar in raw.unicodeScalars {
            if count >= limit { return result + "…" }
            count += 1
            switch scalar {
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case _ where scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format:
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// The same for bytes that need not be UTF-8: a byte that is no part of a character is shown as `\xNN`.
    public static func text(_ bytes: some Sequence<UInt8>, limit: Int = 400) -> String {
        let raw = Array(bytes.prefix(limit * 4))
        if let whole = String(validating: raw, as: UTF8.self) { return text(whole, limit: limit) }
        var result = ""
        for byte in raw.prefix(limit) {
            if byte >= 0x20 && byte < 0x7f {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16)
                result += "\\x" + (digits.count == 1 ? "0" : "") + digits
            }
        }
        return result
    }
}
