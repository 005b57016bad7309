internal import CZlib

/// Small gzip data (RFC 1952) in memory: user-data, a part of a message. Backups are decoded as streams elsewhere.
public enum Gzip {
    public enum Problem: Error, Sendable, Equatable, CustomStringConvertible {
        case tooLarge(limit: Int)
        /// The data ends in the middle of a member.
        case truncated
        /// No gzip data, a wrong checksum or length, or something that is no gzip member behind a member.
        case damaged

        public var description: String {
            switch self {
            case .tooLarge(let limit): "the gzip data inflates to more than \(ByteCount(limit))"
            case .truncated: "the gzip data is cut off"
            case .damaged: "the gzip data is damaged"
            }
        }
    }

    /// The two bytes that every member starts with (RFC 1952, section 2.3.1).
    public static func isGzip(_ bytes: [UInt8]) -> Bool { bytes.starts(with: [0x1f, 0x8b]) }

    /// The bytes of all members one after the other. zlib checks the CRC-32 and the length of each. Zero bytes behind the last
    /// member are the padding of a block device and are accepted, as gzip(1) does; anything else there is damage.
    public static func inflate(_ bytes: [UInt8], limit: Int) throws(Problem) -> [UInt8] {
        var stream = z_stream()
        // 15 bits of window, + 16: a gzip wrapper and no other.
        guard amorce_inflate_init(&stream, 15 + 16) == Z_OK else { throw .damaged }
        defer { inflateEnd(&stream) }
        var output: [UInt8] = []
        var consumed = 0
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let step = advance(&stream, bytes, from: consumed, into: &chunk)
            consumed += step.consumed
            if output.count + step.produced > limit { throw .tooLarge(limit: limit) }
            output.append(contentsOf: chunk.prefix(step.produced))
            switch step.code {
            case Z_STREAM_END:
                let rest = bytes.dropFirst(consumed)
                if rest.allSatisfy({ $0 == 0 }) { return output }
                guard inflateReset(&stream) == Z_OK else { throw .damaged }
            case Z_OK:
                continue
            case Z_BUF_ERROR where consumed == bytes.count:
                // Nothing left to read and nothing left to give, short of the end of the member.
                throw .truncated
            default:
                throw .damaged
            }
        }
    }

    /// One call of inflate. The pointers in `stream` are valid during the call alone.
    private static func advance(
        _ stream: inout z_stream, _ bytes: [UInt8], from offset: Int, into chunk: inout [UInt8]
    ) -> (code: CInt, consumed: Int, produced: Int) {
        bytes.withUnsafeBytes { input in
            chunk.withUnsafeMutableBytes { output in
                let available = input.count - offset
                // zlib only reads through next_in; its type lacks the const for compatibility with old programs.
                stream.next_in = UnsafeMutablePointer(
                    mutating: input.baseAddress?.advanced(by: offset).assumingMemoryBound(to: UInt8.self))
                stream.avail_in = UInt32(clamping: available)
                stream.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_out = UInt32(output.count)
                let given = Int(stream.avail_in)
                let code = CZlib.inflate(&stream, Z_NO_FLUSH)
                return (code, given - Int(stream.avail_in), output.count - Int(stream.avail_out))
            }
        }
    }
}
