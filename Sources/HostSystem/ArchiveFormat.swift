/// The archives that are unpacked. The suffix of the name and the first bytes must agree: what merely looks like an archive to
/// a library that guesses is refused, and no helper program is ever run.
public enum ArchiveFormat: String, Sendable, CaseIterable {
    case tar, tarGzip, tarZstd, tarXz, tarBzip2, zip

    public var suffixes: [String] {
        switch self {
        case .tar: [".tar"]
        case .tarGzip: [".tar.gz", ".tgz"]
        case .tarZstd: [".tar.zst"]
        case .tarXz: [".tar.xz"]
        case .tarBzip2: [".tar.bz2"]
        case .zip: [".zip"]
        }
    }

    /// Every suffix that is known, for messages.
    public static var allSuffixes: [String] { allCases.flatMap(\.suffixes) }

    /// By the suffix of a file name or key; nil for any other.
    public init?(name: String) {
        guard let found = Self.allCases.first(where: { $0.suffixes.contains { name.hasSuffix($0) } }) else {
            return nil
        }
        self = found
    }

    /// The name without its archive suffix.
    public static func stem(of name: String) -> String {
        let suffix = allSuffixes.filter { name.hasSuffix($0) }.max { $0.count < $1.count }
        return String(name.dropLast(suffix?.count ?? 0))
    }

    /// How many bytes `recognise` wants: a tar header block.
    static let headLength = 512

    /// What the first bytes are. Magic numbers as in file(1): RFC 1952 (gzip), RFC 8878 (zstd; pzstd begins with a skippable
    /// frame), the .xz file format 1.2.1, bzip2(1), APPNOTE.TXT 4.3.6 (zip; an empty one begins with its end record).
    static func recognise(_ head: [UInt8]) -> Recognised {
        func begins(_ magic: [UInt8]) -> Bool { head.starts(with: magic) }
        func begins(_ magic: String) -> Bool { head.starts(with: Array(magic.utf8)) }
        if head.isEmpty { return .other("an empty file") }
        if begins([0x1f, 0x8b]) { return .format(.tarGzip) }
        if begins([0x28, 0xb5, 0x2f, 0xfd]) { return .format(.tarZstd) }
        if head.count > 3, head[0] & 0xf0 == 0x50, head[1...3] == [0x2a, 0x4d, 0x18] { return .format(.tarZstd) }
        if begins([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]) { return .format(.tarXz) }
        if begins("BZh"), head.count > 3, (0x31...0x39).contains(head[3]) { return .format(.tarBzip2) }
        if begins([0x50, 0x4b, 3, 4]) || begins([0x50, 0x4b, 5, 6]) { return .format(.zip) }
        if isTar(head) { return .format(.tar) }
        let others: [(String, String)] = [
            ("7z\u{bc}\u{af}\u{27}\u{1c}", "a 7-Zip archive"), ("Rar!", "a RAR archive"), ("LRZI", "an lrzip file"),
            ("LZIP", "an lzip file"), ("\u{89}LZO", "an lzop file"), ("GRZipII", "a GRZip file"),
            ("#mtree", "an mtree file"),
            ("07070", "a cpio archive"), ("!<arch>", "an ar archive"), ("%PDF", "a PDF document"),
            ("\u{7f}ELF", "a program"), ("#!", "a script"), ("xar!", "a xar archive"), ("MSCF", "a cabinet file"),
            ("PK", "a piece of a split zip archive"),
        ]
        for (magic, name) in others where head.starts(with: magic.unicodeScalars.map { UInt8($0.value) }) {
            return .other(name)
        }
        if begins([0x04, 0x22, 0x4d, 0x18]) { return .other("an lz4 file") }
        if begins([0x1f, 0x9d]) { return .other("a compress (.Z) file") }
        let text = head.drop { $0 == 0x20 || (0x09...0x0d).contains($0) || [0xef, 0xbb, 0xbf].contains($0) }
        let start = String(decoding: text.prefix(14), as: UTF8.self).lowercased()
        if start.hasPrefix("<!doctype html") || start.hasPrefix("<html") || start.hasPrefix("<head") {
            return .other("a web page")
        }
        if start.hasPrefix("<?xml") || start.hasPrefix("<error") { return .other("an XML document") }
        if start.hasPrefix("{") || start.hasPrefix("[") { return .other("a JSON document") }
        if head.allSatisfy({ $0 >= 0x20 && $0 < 0x7f || (0x09...0x0d).contains($0) }) { return .other("plain text") }
        return .other("nothing known")
    }

    enum Recognised: Equatable {
        case format(ArchiveFormat)
        case other(String)

        var description: String {
            switch self {
            case .format(let format): format.article
            case .other(let text): text
            }
        }
    }

    /// POSIX.1-1988 ustar: bytes 148..<156 hold the sum of the header's bytes in octal, themselves taken as spaces. Checking
    /// the sum recognises the older v7 headers too, which have no magic. A block of zeros is the end of an empty archive.
    private static func isTar(_ head: [UInt8]) -> Bool {
        guard head.count >= headLength else { return false }
        if head.allSatisfy({ $0 == 0 }) { return true }
        let field = head[148..<156].drop { $0 == 0x20 }.prefix { (0x30...0x37).contains($0) }
        guard !field.isEmpty else { return false }
        let stated = field.reduce(0) { $0 * 8 + Int($1 - 0x30) }
        var unsigned = 8 * 0x20
        // Some old tars summed signed bytes.
        var signed = unsigned
        for (index, byte) in head.prefix(headLength).enumerated() where !(148..<156).contains(index) {
            unsigned += Int(byte)
            signed += Int(Int8(bitPattern: byte))
        }
        return stated == unsigned || stated == signed
    }

    var article: String {
        switch self {
        case .tar: "a tar archive"
        case .tarGzip: "a gzip file"
        case .tarZstd: "a zstd file"
        case .tarXz: "an xz file"
        case .tarBzip2: "a bzip2 file"
        case .zip: "a zip archive"
        }
    }
}
