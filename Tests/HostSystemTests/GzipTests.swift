import HostSystem
import TestSupport
import Testing

@Suite struct GzipTests {
    static let text = Array("#amorce\napp: boutique\n".utf8)

    static func packed(_ bytes: [UInt8], _ options: [String] = []) throws -> [UInt8] {
        let scratch = try ScratchDirectory()
        return try Program.check(["gzip", "-c"] + options + [try scratch.write("data", bytes)])
    }

    @Test(arguments: [0, 1, 22, 65535, 65536, 300_000])
    func inflatesWhatGzipPacked(size: Int) throws {
        let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 3) }
        #expect(try Gzip.inflate(try Self.packed(bytes), limit: size) == bytes)
    }

    @Test func membersFollowEachOther() throws {
        let packed = try Self.packed([1, 2]) + Self.packed([]) + Self.packed([3], ["-9"])
        #expect(try Gzip.inflate(packed, limit: 10) == [1, 2, 3])
        #expect(try Gzip.inflate(packed + [0, 0, 0], limit: 10) == [1, 2, 3])
    }

    @Test func everyCutIsRefused() throws {
        let packed = try Self.packed(Self.text)
        for end in packed.indices {
            #expect(throws: Gzip.Problem.truncated) { try Gzip.inflate(Array(packed[..<end]), limit: 1000) }
        }
    }

    @Test func aFlippedBitInTheDataOrItsChecksumIsRefused() throws {
        let packed = try Self.packed(Self.text, ["-n"])
        // Behind the ten bytes of the header, whose time and system are not checked.
        for index in 10..<packed.count {
            var flipped = packed
            flipped[index] ^= 0x10
            let result = try? Gzip.inflate(flipped, limit: 1000)
            // The last byte of the data has bits that mean nothing; the checksum and the length behind it have none.
            #expect(result == nil || (result == Self.text && index == packed.count - 9), "byte \(index)")
        }
    }

    @Test(arguments: [[UInt8]("x".utf8), Array("garbage".utf8), [0x1f, 0x8b], [0x1f]])
    func whatFollowsTheLastMemberMustBeAMember(tail: [UInt8]) throws {
        let packed = try Self.packed(Self.text)
        #expect(throws: Gzip.Problem.self) { try Gzip.inflate(packed + tail, limit: 1000) }
    }

    @Test func aBombEndsAtTheLimit() throws {
        let bomb = try Self.packed([UInt8](repeating: 0, count: 20 << 20))
        #expect(throws: Gzip.Problem.tooLarge(limit: 1 << 20)) { try Gzip.inflate(bomb, limit: 1 << 20) }
    }

    @Test(arguments: [[], Array("#amorce\n".utf8), [0x28, 0xb5, 0x2f, 0xfd]] as [[UInt8]])
    func otherBytesAreNoGzip(bytes: [UInt8]) {
        #expect(!Gzip.isGzip(bytes))
        #expect(throws: Gzip.Problem.self) { try Gzip.inflate(bytes, limit: 1000) }
    }
}
