internal import HostSystem

/// What a value from a metadata service must look like before anything is done with it. A page of a captive portal, or a line
/// break on its way into a header or a path, ends here.
enum MetadataShape: Sendable {
    /// `i-` and hexadecimal digits.
    case instance
    /// A region, a zone, an instance type, an image: letters, digits, `.`, `-` and `_`.
    case word
    /// `InService`, `Warmed:Stopped`.
    case state
    case account
    case ipv4, ipv6
    case tagKey
    /// IAM's rule for the names of roles, without what a path could be misled by.
    case role
    /// Visible ASCII, as HTTP allows in a header.
    case token
    case path

    func accepts(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        func holds(_ range: ClosedRange<Int>, _ others: String) -> Bool {
            range.contains(bytes.count)
                && bytes.allSatisfy { Self.isAlphanumeric($0) || others.utf8.contains($0) }
        }
        switch self {
        case .instance:
            return text.hasPrefix("i-") && holds(3...64, "-") && bytes.dropFirst(2).allSatisfy(Self.isHexadecimal)
        case .word: return holds(1...64, ".-_")
        case .state: return holds(1...64, ":")
        case .account: return bytes.count == 12 && bytes.allSatisfy(Self.isDigit)
        case .ipv4:
            let parts = text.split(separator: ".", omittingEmptySubsequences: false)
            return parts.count == 4 && parts.allSatisfy { $0.utf8.allSatisfy(Self.isDigit) && UInt8($0) != nil }
        case .ipv6:
            return text.contains(":") && holds(2...45, ":.")
                && bytes.allSatisfy { Self.isHexadecimal($0) || $0 == 0x3a || $0 == 0x2e }
        case .tagKey: return holds(1...128, "+-=.,_:@") && text != "." && text != ".."
        case .role: return holds(1...64, "+=,.@_-") && text != "." && text != ".."
        case .token:
            return (1...1024).contains(bytes.count) && bytes.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x3c }
        case .path:
            return text.hasPrefix("/latest/") && holds(8...300, "/+-=.,_:@")
                && !text.split(separator: "/").contains { $0 == "." || $0 == ".." }
        }
    }

    /// The text itself, or a problem that shows the start of it: no item that has a shape but the token is secret.
    func checked(_ text: String, item: String) throws(MetadataProblem) -> String {
        guard accepts(text) else { throw .malformed(item: item, why: "\"\(Printable.text(text, limit: 60))\"") }
        return text
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        isDigit(byte) || (0x61...0x66).contains(byte) || (0x41...0x46).contains(byte)
    }
    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        isDigit(byte) || (0x61...0x7a).contains(byte) || (0x41...0x5a).contains(byte)
    }
}
