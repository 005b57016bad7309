/// One member of a tar archive as amorce writes it: GNU's format, as every tar of a Linux system reads it (GNU tar manual, "Basic
/// Tar Format"). The owner is always 0: whoever unpacks it decides. Pure.
public struct TarMember: Sendable {
    public enum Kind: Sendable {
        case regular(size: Int64)
        case directory
        case symlink(target: [UInt8])
        /// The target is a path of the archive.
        case hardLink(target: [UInt8])
    }

    public static let blockSize = 512

    /// Two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format").
    public static let endMark = [UInt8](repeating: 0, count: 2 * blockSize)

    let path: [UInt8]
    let kind: Kind
    let mode: UInt16
    /// Whole seconds since 1970: the format has no more.
    let modified: Int64

    /// - Parameter modified: nanoseconds since 1970.
    public init(path: [UInt8], kind: Kind, mode: UInt16, modified: Int64) {
        self.path = path
        self.kind = kind
        self.mode = mode
        let (seconds, rest) = modified.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.modified = rest < 0 ? seconds - 1 : seconds
    }

    /// How many zeros follow contents of that size.
    public static func padding(after size: Int64) -> Int { Int((512 - size % 512) % 512) }

    /// The header blocks, those for long names included; the contents follow.
    public var header: [UInt8] {
        var name = path
        var target: [UInt8] = []
        var size: Int64 = 0
        let type: UInt8
        switch kind {
        case .regular(let bytes): (type, size) = (UInt8(ascii: "0"), bytes)
        case .directory:
            type = UInt8(ascii: "5")
            name.append(UInt8(ascii: "/"))
        case .symlink(let to): (type, target) = (UInt8(ascii: "2"), to)
        case .hardLink(let to): (type, target) = (UInt8(ascii: "1"), to)
        }
        var blocks: [UInt8] = []
        if target.count > 100 { blocks += Self.long(target, type: UInt8(ascii: "K")) }
        if name.count > 100 { blocks += Self.long(name, type: UInt8(ascii: "L")) }
        blocks += Self.block(
            name: name.prefix(100), type: type, size: size, mode: UInt64(mode), modified: modified,
            target: target.prefix(100))
        return blocks
    }

    /// Blanks the mode and the time of every hard link's header, and the sum with them: they are the file's, and a manifest does not
    /// repeat them. False where these are no headers of members without contents, or the sum of such a one is wrong.
    static func dropUntold(from headers: inout [UInt8]) -> Bool {
        var start = 0
        while start < headers.count {
            guard headers.count - start >= blockSize else { return false }
            switch headers[start + 156] {
            case UInt8(ascii: "K"), UInt8(ascii: "L"):
                guard let size = octal(headers[(start + 124)..<(start + 136)]),
                    size <= Int64(headers.count - start - blockSize)
                else { return false }
                start += Int(size) + padding(after: size)
            case UInt8(ascii: "1"):
                let stated = octal(headers[(start + 148)..<(start + 155)])
                headers.replaceSubrange((start + 148)..<(start + 156), with: [UInt8](repeating: 0x20, count: 8))
                let sum = headers[start..<(start + blockSize)].reduce(0) { $0 + Int64($1) }
                if sum != stated { return false }
                for field in [100..<108, 136..<156] {
                    for offset in field { headers[start + offset] = 0 }
                }
            default: break
            }
            start += blockSize
        }
        return start == headers.count
    }

    /// Digits up to a NUL.
    private static func octal(_ field: ArraySlice<UInt8>) -> Int64? {
        let digits = field.prefix { $0 != 0 }
        guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x37).contains($0) }) else { return nil }
        return digits.reduce(0) { $0 * 8 + Int64($1 - 0x30) }
    }

    /// A name of more than 100 bytes is the contents of a member before the one that it names.
    private static func long(_ text: [UInt8], type: UInt8) -> [UInt8] {
        let contents = text + [0]
        let name = Array("././@LongLink".utf8)
        return block(name: name[...], type: type, size: Int64(contents.count), mode: 0, modified: 0, target: [])
            + contents + [UInt8](repeating: 0, count: padding(after: Int64(contents.count)))
    }

    private static func block(
        name: ArraySlice<UInt8>, type: UInt8, size: Int64, mode: UInt64, modified: Int64, target: ArraySlice<UInt8>
    ) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: blockSize)
        func put(_ bytes: some Collection<UInt8>, _ offset: Int) {
            block.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        }
        put(name, 0)
        put(number(Int64(mode), width: 8), 100)
        put(number(0, width: 8), 108)
        put(number(0, width: 8), 116)
        put(number(size, width: 12), 124)
        put(number(modified, width: 12), 136)
        block[156] = type
        put(target, 157)
        put("ustar  \0".utf8, 257)
        // The sum of all bytes with the field itself taken as spaces: six octal digits, NUL, space.
        put([UInt8](repeating: 0x20, count: 8), 148)
        let sum = block.reduce(0) { $0 + Int64($1) }
        put(number(sum, width: 7), 148)
        return block
    }

    /// Octal digits and a NUL; what does not fit, or is negative, in base 256 with the top bit set, as GNU tar writes it.
    private static func number(_ value: Int64, width: Int) -> [UInt8] {
        let digits = String(value, radix: 8)
        if value >= 0 && digits.utf8.count < width {
            return [UInt8](repeating: 0x30, count: width - 1 - digits.utf8.count) + digits.utf8 + [0]
        }
        var bytes = [UInt8](repeating: value < 0 ? 0xff : 0, count: width)
        var rest = value
        for index in (max(0, width - 8)..<width).reversed() {
            bytes[index] = UInt8(truncatingIfNeeded: rest)
            rest >>= 8
        }
        if value >= 0 { bytes[0] = 0x80 }
        return bytes
    }
}
