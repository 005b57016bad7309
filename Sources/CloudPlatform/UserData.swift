public import HostSystem

/// Settings that were found in user-data. The text may hold a password that somebody wrote there, so it is not shown.
public struct UserDataSettings: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
    /// YAML, with LF line ends and no byte order mark.
    public let text: String
    /// The line of `origin` on which `text` starts, from 1.
    public let firstLine: Int
    /// For messages: `user-data`, `user-data, part 2 (front.yaml)`. Lines are counted in it once it is decoded.
    public let origin: String

    public init(text: String, firstLine: Int, origin: String) {
        self.text = text
        self.firstLine = firstLine
        self.origin = origin
    }

    public var description: String { "settings from \(origin)" }
    public var customMirror: Mirror { Mirror(self, children: ["origin": origin]) }
}

/// User-data that is, or may be, for amorce and cannot be read. Never holds any of it.
public struct UserDataProblem: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        case tooLarge(limit: Int)
        case gzip(Gzip.Problem)
        /// A content transfer encoding that is unknown, or broken.
        case encoding(String)
        case notText
        case tooDeep
        case tooMany(limit: Int)
    }

    public let kind: Kind
    public let origin: String

    public init(_ kind: Kind, origin: String) {
        self.kind = kind
        self.origin = origin
    }

    public var description: String {
        switch kind {
        case .tooLarge(let limit): "\(origin) is larger than \(ByteCount(limit))"
        case .gzip(let problem): "\(origin): \(problem)"
        case .encoding(let name): "\(origin) is not valid \(name)"
        case .notText: "\(origin) is not UTF-8 text"
        case .tooDeep: "\(origin) is wrapped too many times"
        case .tooMany(let limit): "\(origin) has more than \(limit) parts for amorce"
        }
    }
}

/// amorce's settings among what else user-data may hold. Pure.
///
/// Found are: text whose first line is `#amorce`; in a MIME message, however nested, every part of the type `text/x-amorce`,
/// and every plain one that starts with `#amorce`; each of them also compressed by gzip, or in base64, as a whole or as a part.
/// Everything else is somebody else's: a shell script, a `#cloud-config` (whose `write_files` cloud-init itself carries out,
/// also into /etc/amorce), an archive, an `#include`. It gives no settings and no error.
public struct UserData {
    /// Of the raw data, and of everything that it inflates and decodes to.
    public static let limit = 1 << 20
    private static let depthLimit = 6
    private static let textLimit = 16
    private static let partLimit = 1000

    private var found: [UserDataSettings] = []
    /// Bytes that decoding has made so far: a part inside a part does not start at zero again.
    private var decoded = 0

    private init() {}

    /// The settings texts, in the order in which they stand; later ones are meant to win over earlier ones.
    public static func settings(in raw: Secret) throws(UserDataProblem) -> [UserDataSettings] {
        var reader = UserData()
        let bytes = raw.revealedBytes
        guard bytes.count <= limit else { throw UserDataProblem(.tooLarge(limit: limit), origin: "user-data") }
        try reader.collect(bytes[...], origin: "user-data", depth: 0)
        return reader.found
    }

    /// Looks at bytes of which no type is known.
    private mutating func collect(_ raw: ArraySlice<UInt8>, origin: String, depth: Int) throws(UserDataProblem) {
        guard depth <= Self.depthLimit else { throw UserDataProblem(.tooDeep, origin: origin) }
        if let inflated = try inflate(raw, origin: origin) {
            return try collect(inflated[...], origin: origin, depth: depth + 1)
        }
        let bytes = Self.withoutMark(raw)
        if Self.isMarked(bytes) {
            return try add(bytes, firstLine: 1, origin: origin)
        }
        if let entity = Self.message(bytes) {
            return try collect(entity, origin: origin, depth: depth + 1)
        }
        // A whole that is base64 by its alphabet alone may still be a word of plain text: it counts only where something known
        // comes out.
        if let plain = Self.base64(bytes), Self.isKnown(plain) {
            try count(plain.count, origin: origin)
            try collect(plain[...], origin: origin, depth: depth + 1)
        }
    }

    /// Looks at one entity of a MIME message.
    private mutating func collect(_ entity: MIMEEntity, origin: String, depth: Int) throws(UserDataProblem) {
        guard depth <= Self.depthLimit else { throw UserDataProblem(.tooDeep, origin: origin) }
        if entity.type.hasPrefix("multipart/") {
            for (index, part) in entity.parts(limit: Self.partLimit).enumerated() {
                let name = part.fileName.map { " (\(Printable.text(Files.name(of: $0), limit: 80)))" } ?? ""
                try collect(part, origin: "\(origin), part \(index + 1)\(name)", depth: depth + 1)
            }
            return
        }
        let isOurs = entity.type == "text/x-amorce"
        // What cloud-init, too, judges by its first line; and what it unpacks first.
        let isUntyped = ["text/plain", "text/x-not-multipart", "application/octet-stream"].contains(entity.type)
        let isCompressed =
            entity.type.hasPrefix("application/") && (entity.type.contains("gzip") || entity.type.contains("gunzip"))
        guard isOurs || isUntyped || isCompressed else { return }

        var firstLine = 1
        var body = entity.body
        switch entity.transferEncoding {
        case "7bit", "8bit", "binary", "":
            // The body stands in the message as it is: its lines can be named.
            firstLine = entity.firstLine
        case "base64":
            guard let plain = TransferEncoding.base64(body) else { return try refuse("base64", isOurs, origin) }
            body = plain[...]
        case "quoted-printable":
            guard let plain = TransferEncoding.quotedPrintable(Array(body)) else {
                return try refuse("quoted-printable", isOurs, origin)
            }
            body = plain[...]
        case let other:
            return try refuse(Printable.text(other, limit: 40), isOurs, origin)
        }
        try count(body.count, origin: origin)
        if let inflated = try inflate(body, origin: origin) {
            body = inflated[...]
            firstLine = 1
        }
        body = Self.withoutMark(body)
        guard isOurs || Self.isMarked(body) else { return }
        // What gzip packed has no character set of the message's any more, but ASCII is ASCII in all that are accepted.
        let isUnicode = ["utf-8", "utf8", "us-ascii", "ascii"].contains(entity.charset)
        guard isUnicode || body.allSatisfy({ $0 < 0x80 }) else { throw UserDataProblem(.notText, origin: origin) }
        try add(body, firstLine: firstLine, origin: origin)
    }

    /// A part that is not amorce's may be as broken as it likes.
    private func refuse(_ encoding: String, _ isOurs: Bool, _ origin: String) throws(UserDataProblem) {
        if isOurs { throw UserDataProblem(.encoding(encoding), origin: origin) }
    }

    private mutating func add(_ bytes: ArraySlice<UInt8>, firstLine: Int, origin: String) throws(UserDataProblem) {
        // YAML forbids NUL, and a C program on the way would end the text there.
        guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw UserDataProblem(.notText, origin: origin)
        }
        guard text.contains(where: { !$0.isWhitespace }) else { return }
        guard found.count < Self.textLimit else {
            throw UserDataProblem(.tooMany(limit: Self.textLimit), origin: "user-data")
        }
        // A Character is a whole CRLF, so this touches no lone CR.
        let lines = String(text.map { $0 == "\r\n" ? "\n" : $0 })
        found.append(UserDataSettings(text: lines, firstLine: firstLine, origin: origin))
    }

    private mutating func count(_ bytes: Int, origin: String) throws(UserDataProblem) {
        decoded += bytes
        guard decoded <= Self.limit else { throw UserDataProblem(.tooLarge(limit: Self.limit), origin: origin) }
    }

    /// Nil where the bytes are not gzip. Damage is an error: nobody else's user-data starts with gzip's two bytes, and settings
    /// that were cut off must not count as none.
    private mutating func inflate(_ bytes: ArraySlice<UInt8>, origin: String) throws(UserDataProblem) -> [UInt8]? {
        guard Gzip.isGzip(Array(bytes.prefix(2))) else { return nil }
        do {
            let result = try Gzip.inflate(Array(bytes), limit: Self.limit - decoded)
            decoded += result.count
            return result
        } catch {
            if case .tooLarge = error { throw UserDataProblem(.tooLarge(limit: Self.limit), origin: origin) }
            throw UserDataProblem(.gzip(error), origin: origin)
        }
    }

    private static func withoutMark(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        bytes.starts(with: [0xef, 0xbb, 0xbf]) ? bytes.dropFirst(3) : bytes
    }

    /// Whether the first line that is not blank is `#amorce`: a template may leave blank lines before it, and cloud-init skips
    /// them before its own marks as well.
    private static func isMarked(_ bytes: ArraySlice<UInt8>) -> Bool {
        let start = bytes.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0a || $0 == 0x0d }
        let line = start.prefix { $0 != 0x0a && $0 != 0x0d }
        let mark = Array("#amorce".utf8)
        return line.starts(with: mark) && line.dropFirst(mark.count).allSatisfy { $0 == 0x20 || $0 == 0x09 }
    }

    /// A MIME message as cloud-init knows one: `MIME-Version:` somewhere in its first 4 KiB, or a content type up front.
    private static func message(_ bytes: ArraySlice<UInt8>) -> MIMEEntity? {
        let start = bytes.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0a || $0 == 0x0d }
        let head = String(decoding: start.prefix(4096), as: UTF8.self).lowercased()
        guard head.contains("mime-version:") || head.hasPrefix("content-type:") else { return nil }
        let skipped = bytes[bytes.startIndex..<start.startIndex].count { $0 == 0x0a }
        return MIMEEntity(start, line: 1 + skipped)
    }

    private static func base64(_ bytes: ArraySlice<UInt8>) -> [UInt8]? {
        guard bytes.count >= 8 else { return nil }
        return TransferEncoding.base64(bytes)
    }

    private static func isKnown(_ bytes: [UInt8]) -> Bool {
        let plain = withoutMark(bytes[...])
        return Gzip.isGzip(Array(plain.prefix(2))) || isMarked(plain) || message(plain) != nil
    }
}
