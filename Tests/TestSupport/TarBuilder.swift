/// Tar archives made byte by byte, also such as no tar program writes.
public struct TarBuilder {
    public private(set) var bytes: [UInt8] = []

    public init() {}

    /// One ustar member; `size` overrides what the header states.
    public mutating func add(
        _ name: String, type: Character = "0", content: [UInt8] = [], link: String = "", mode: Int = 0o644,
        size: Int? = nil,
        modified: Int = 1_700_000_000
    ) {
        add(
            Array(name.utf8), type: type, content: content, link: Array(link.utf8), mode: mode, size: size,
            modified: modified)
    }

    public mutating func add(
        _ name: [UInt8], type: Character = "0", content: [UInt8] = [], link: [UInt8] = [], mode: Int = 0o644,
        size: Int? = nil,
        modified: Int = 1_700_000_000
    ) {
        // GNU's way for long names and targets.
        if name.count > 100 { add("././@LongLink", type: "L", content: name + [0]) }
        if link.count > 100 { add("././@LongLink", type: "K", content: link + [0]) }
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ value: some Sequence<UInt8>, at offset: Int) {
            for (index, byte) in value.enumerated() { header[offset + index] = byte }
        }
        func octal(_ value: Int, _ digits: Int) -> [UInt8] {
            let text = String(value, radix: 8)
            return Array((String(repeating: "0", count: max(0, digits - text.count)) + text).utf8)
        }
        put(name.prefix(100), at: 0)
        put(octal(mode, 7), at: 100)
        put(octal(0, 7), at: 108)
        put(octal(0, 7), at: 116)
        put(octal(size ?? content.count, 11), at: 124)
        put(octal(modified, 11), at: 136)
        put([UInt8](repeating: 0x20, count: 8), at: 148)
        put([UInt8(ascii: "0") &+ (type.asciiValue ?? 48) &- 48], at: 156)
        put(link.prefix(100), at: 157)
        put(Array("ustar".utf8) + [0] + Array("00".utf8), at: 257)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + [0], at: 148)
        bytes += header + content
        bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    public mutating func addRaw(_ raw: [UInt8]) { bytes += raw }

    /// With the two blocks of zeros.
    public var finished: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}
