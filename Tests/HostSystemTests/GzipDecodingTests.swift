import TestSupport
import Testing

@testable import HostSystem

/// The gzip decoder of archives is not the library that everybody else's verdict comes from: here it is held against zlib, by
/// way of `Gzip.inflate`, at every place where data can be split, cut or damaged.
struct GzipDecodingTests {
    struct Sample: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var bytes: [UInt8]
        /// Of the second and later members.
        var boundaries: [Int] = []
    }

    static let text = Array("amorce, that which starts a thing; amorce, amorce, that which starts a thing again\n".utf8)

    /// RFC 1952, section 8, one bit at a time.
    static func crc32(_ bytes: [UInt8]) -> UInt32 {
        var crc = ~UInt32(0)
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 {
                let isOdd = crc & 1 == 1
                crc >>= 1
                if isOdd { crc ^= 0xedb8_8320 }
            }
        }
        return ~crc
    }

    static func little(_ value: UInt32, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    }

    /// One member with the optional fields of RFC 1952, section 2.3, in its header.
    static func member(
        _ contents: [UInt8], _ level: String = "-9", extra: [UInt8]? = nil, name: String? = nil, comment: String? = nil,
        hasHeaderCRC: Bool = false
    ) throws -> [UInt8] {
        let scratch = try ScratchDirectory()
        let plain = try Program.check(["gzip", "-n", "-c", level, try scratch.write("data", contents)])
        var header = Array(plain.prefix(10))
        if hasHeaderCRC { header[3] |= 2 }
        if let extra {
            header[3] |= 4
            header += little(UInt32(extra.count), 2) + extra
        }
        if let name {
            header[3] |= 8
            header += Array(name.utf8) + [0]
        }
        if let comment {
            header[3] |= 16
            header += Array(comment.utf8) + [0]
        }
        if hasHeaderCRC { header += little(crc32(header), 2) }
        return header + plain.dropFirst(10)
    }

    /// A member of one stored block.
    static func stored(_ contents: [UInt8]) -> [UInt8] {
        let size = UInt32(contents.count)
        var bytes: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1]
        bytes += little(size, 2)
        bytes += little(~size, 2)
        bytes += contents
        bytes += little(crc32(contents), 4)
        bytes += little(size, 4)
        return bytes
    }

    static func samples() throws -> [Sample] {
        // Enough different bytes for a block with its own codes.
        let varied = (0..<700).map { index -> UInt8 in
            let square = index * index
            return UInt8(truncatingIfNeeded: square >> (index % 7)) & 0x3f
        }
        let plain = try member(text)
        let all = try member(
            text, extra: [65, 80, 2, 0, 1, 2], name: "a.tar", comment: "made for a test", hasHeaderCRC: true)
        let several = try [all, member([]), stored([]), plain, stored(text), member([], hasHeaderCRC: true)]
        let boundaries = several.indices.dropFirst().map { index in several[..<index].reduce(0) { $0 + $1.count } }
        return try [
            Sample(testDescription: "plain", bytes: plain),
            Sample(testDescription: "codes of its own", bytes: member(varied)),
            Sample(testDescription: "stored", bytes: stored(text)),
            Sample(testDescription: "empty", bytes: member([])),
            Sample(testDescription: "extra field", bytes: member(text, extra: Array(repeating: 7, count: 40))),
            Sample(testDescription: "empty extra field", bytes: member(text, extra: [])),
            Sample(testDescription: "name", bytes: member(text, name: "backup.tar")),
            Sample(testDescription: "empty name, comment", bytes: member(text, name: "", comment: "of the night")),
            Sample(testDescription: "header CRC", bytes: member(text, hasHeaderCRC: true)),
            Sample(testDescription: "every field", bytes: all),
            Sample(
                testDescription: "members, empty ones among them", bytes: Array(several.joined()),
                boundaries: boundaries),
        ]
    }

    /// Two pieces, each in memory of its own size, so that reading beyond one of them meets nothing that is good.
    final class Pieces: ByteSource {
        private var rest: [TestByteSource]
        init(_ bytes: [UInt8], splitAt index: Int) {
            rest = [Array(bytes[..<index]), Array(bytes[index...])].filter { !$0.isEmpty }.map { TestByteSource($0) }
        }
        func nextBytes() throws -> UnsafeRawBufferPointer {
            while let first = rest.first {
                let bytes = try first.nextBytes()
                if !bytes.isEmpty { return bytes }
                rest.removeFirst()
            }
            return UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    static func decode(_ source: any ByteSource, bufferSize: Int = 256 << 10) throws -> [UInt8] {
        let decoder = try #require(
            DecoderSource(.tarGzip, source, limits: ExtractionLimits(), bufferSize: bufferSize))
        var output: [UInt8] = []
        while true {
            let bytes = try decoder.nextBytes()
            if bytes.isEmpty { return output }
            output += bytes
        }
    }

    /// Nil when it is refused as damaged; any other error is a failure.
    static func verdict(_ source: any ByteSource, bufferSize: Int = 256 << 10) throws -> [UInt8]? {
        do {
            return try decode(source, bufferSize: bufferSize)
        } catch ArchiveError.damaged {
            return nil
        }
    }

    static func verdictOfZlib(_ bytes: [UInt8]) -> [UInt8]? { try? Gzip.inflate(bytes, limit: 1 << 20) }

    @Test("split between any two bytes, into pieces and rooms of every size", arguments: try samples())
    func splits(_ sample: Sample) throws {
        let expected = try #require(Self.verdictOfZlib(sample.bytes))
        for index in sample.bytes.indices {
            #expect(try Self.decode(Pieces(sample.bytes, splitAt: index)) == expected, "split at \(index)")
        }
        for size in 1...100 {
            #expect(try Self.decode(TestByteSource(sample.bytes, pieceSize: size)) == expected, "pieces of \(size)")
            #expect(try Self.decode(TestByteSource(sample.bytes), bufferSize: size) == expected, "rooms of \(size)")
            let both = try Self.decode(TestByteSource(sample.bytes, pieceSize: size), bufferSize: 101 - size)
            #expect(both == expected, "pieces of \(size), rooms of \(101 - size)")
        }
    }

    @Test("cut at every byte", arguments: try samples())
    func cuts(_ sample: Sample) throws {
        for length in sample.bytes.indices {
            let cut = Array(sample.bytes[..<length])
            for size in [1, 7, 256 << 10] {
                let verdict = try Self.verdict(TestByteSource(cut, pieceSize: size), bufferSize: size)
                #expect(
                    (verdict != nil) == sample.boundaries.contains(length), "\(length) of \(sample.bytes.count) bytes")
                #expect(verdict == Self.verdictOfZlib(cut))
            }
        }
    }

    @Test("flipped at every bit", arguments: try samples())
    func flips(_ sample: Sample) throws {
        let good = try #require(Self.verdictOfZlib(sample.bytes))
        for index in sample.bytes.indices {
            for bit in 0..<8 {
                var bytes = sample.bytes
                bytes[index] ^= 1 << UInt8(bit)
                let expected = Self.verdictOfZlib(bytes)
                for size in [5, 256 << 10] {
                    let verdict = try Self.verdict(TestByteSource(bytes, pieceSize: size))
                    #expect(verdict == expected, "bit \(bit) of byte \(index)")
                    #expect(verdict == nil || verdict == good, "bit \(bit) of byte \(index)")
                }
            }
        }
    }

    @Test("something behind the last member", arguments: try samples())
    func trailing(_ sample: Sample) throws {
        let zeros = [UInt8](repeating: 0, count: 600)
        let tails: [[UInt8]] = [
            [0], zeros, zeros + [1], [1], [0x1f], [0x1f, 0x8b], [0x1f, 0x8b, 8], Array("garbage, and more of it".utf8),
            Array(sample.bytes.prefix(10)), Array(sample.bytes.dropLast()), sample.bytes, zeros + sample.bytes,
        ]
        for tail in tails {
            let bytes = sample.bytes + tail
            for size in [1, 64, 256 << 10] {
                #expect(
                    try Self.verdict(TestByteSource(bytes, pieceSize: size)) == Self.verdictOfZlib(bytes),
                    "\(tail.prefix(30))")
            }
        }
    }

    @Test("a large file, its window and its blocks across every room", arguments: ["-1", "-6", "-9"])
    func large(_ level: String) throws {
        // A fixed sequence (xorshift) of words of random bytes: matches near and far, and bytes that nothing matches.
        var state: UInt64 = 88_172_645_463_325_252
        func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
        let words = (0..<2000).map { index -> [UInt8] in
            (0..<3 + index % 40).map { _ in UInt8(truncatingIfNeeded: next() >> 20) }
        }
        var contents: [UInt8] = []
        while contents.count < 600_000 { contents += words[Int(next() % 2000)] }
        let packed = try Self.member(contents, level)
        let sizes = [(1000, 256 << 10), (256 << 10, 1000), (256 << 10, 33_000), (70_000, 65_537), (3, 1 << 20)]
        for (piece, room) in sizes {
            #expect(
                try Self.decode(TestByteSource(packed, pieceSize: piece), bufferSize: room) == contents,
                "pieces of \(piece), rooms of \(room)")
        }
    }
}
