internal import HostSystem

/// The parts of an http or https URL, none of them decoded: what was signed is what is sent.
struct WebAddress: Sendable, Equatable {
    /// Lower case: `http` or `https`.
    let scheme: String
    /// Host and port as a Host header has them: lower case, the scheme's own port left out, IPv6 in brackets.
    let authority: String
    /// Encoded, with its leading slash.
    var path: String
    /// Encoded, without the question mark; nil where there is none.
    var query: String?

    /// Nil for another scheme, an empty host, a user name (`user:password@host` would put a password into messages), a port that
    /// is none, or a character that an URL cannot have.
    init?(_ text: String) {
        guard let colon = text.firstIndex(of: ":") else { return nil }
        scheme = text[..<colon].lowercased()
        guard scheme == "http" || scheme == "https", text[colon...].hasPrefix("://") else { return nil }
        guard !text.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7f || $0 == 0x5c }) else { return nil }
        var rest = text[text.index(colon, offsetBy: 3)...]
        if let fragment = rest.firstIndex(of: "#") { rest = rest[..<fragment] }
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        guard let authority = Self.authority(rest[..<end].lowercased(), scheme: scheme) else { return nil }
        self.authority = authority
        rest = rest[end...]
        if let mark = rest.firstIndex(of: "?") {
            query = String(rest[rest.index(after: mark)...])
            rest = rest[..<mark]
        }
        path = rest.isEmpty ? "/" : String(rest)
    }

    private static func authority(_ text: String, scheme: String) -> String? {
        guard !text.contains("@"), !text.isEmpty else { return nil }
        var host = text
        var port = ""
        // An IPv6 address has colons of its own, inside brackets.
        let tail = text.lastIndex(of: "]") ?? text.startIndex
        if let colon = text[tail...].lastIndex(of: ":") {
            host = String(text[..<colon])
            port = String(text[text.index(after: colon)...])
            guard let number = UInt16(port), number > 0 else { return nil }
        }
        guard !host.isEmpty, host.utf8.allSatisfy({ isHostByte($0) }) else { return nil }
        return port.isEmpty || port == (scheme == "https" ? "443" : "80") ? host : "\(host):\(port)"
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: ":"), UInt8(ascii: "["),
            UInt8(ascii: "]"), UInt8(ascii: "%"):
            true
        // An internationalised name; libcurl knows its ASCII form.
        default: byte >= 0x80
        }
    }

    var origin: String { scheme + "://" + authority }
    var text: String { origin + path + (query.map { "?" + $0 } ?? "") }

    /// Where a Location header leads from here (RFC 3986, section 5.2, for the forms that servers send). Nil where it is none.
    func following(_ location: String) -> WebAddress? {
        if location.hasPrefix("//") { return WebAddress(scheme + ":" + location) }
        if location.hasPrefix("/") { return WebAddress(origin + location) }
        if let colon = location.firstIndex(of: ":"), location[..<colon].allSatisfy({ $0.isLetter }) {
            return WebAddress(location)
        }
        let folder = path[...(path.lastIndex(of: "/") ?? path.startIndex)]
        return WebAddress(origin + folder + location)
    }

    /// Percent-encoding as AWS signs it: everything but the unreserved characters of RFC 3986, digits in upper case.
    static func encoded(_ text: String, keepingSlash: Bool = false) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var result: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                result.append(byte)
            case UInt8(ascii: "/") where keepingSlash: result.append(byte)
            default: result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// The bytes behind percent-encoding; a `%` without two digits stays as it is. Nil where they are no UTF-8.
    static func decoded(_ text: some StringProtocol, plusIsSpace: Bool = false) -> String? {
        let source = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < source.count {
            if source[index] == UInt8(ascii: "%"), index + 2 < source.count,
                let byte = [UInt8](hex: String(decoding: source[index + 1...index + 2], as: UTF8.self))
            {
                result += byte
                index += 3
            } else {
                result.append(plusIsSpace && source[index] == UInt8(ascii: "+") ? 0x20 : source[index])
                index += 1
            }
        }
        return String(validating: result, as: UTF8.self)
    }
}

