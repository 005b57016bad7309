internal import CBzip2
internal import CIsal
internal import CLzma
internal import CZlib
internal import CZstd

/// One compressed member, frame or stream at a time. The decoder around it owns the buffers and decides what the end of the
/// input means.
protocol Codec: AnyObject {
    var name: String { get }
    /// How many zero bytes may follow the last member: a multiple of this; 0 for none.
    var paddingUnit: Int { get }
    /// Whether every member so far carried a check of its contents.
    var hasChecks: Bool { get }
    /// Makes ready for the next member.
    func begin() throws(ArchiveError)
    /// Takes from `input` and puts into `output`, both shortened by what was used; true at the end of the member, with every
    /// check that the format has for it passed.
    func step(_ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer) throws(ArchiveError)
        -> Bool
}

/// The decompressed bytes of a source. Each member is checked whole; the end of the input is only an end between two members,
/// and whatever follows the last one but zero padding is damage. libarchive's own filters are not used: they do not check
/// gzip's CRC, and take the end of the input anywhere between members, and any bytes behind them, for a good end.
final class DecoderSource: ByteSource {
    private let source: any ByteSource
    private let codec: any Codec
    private let limits: ExtractionLimits
    private let buffer: UnsafeMutableRawBufferPointer
    private var input = UnsafeRawBufferPointer(start: nil, count: 0)
    private var isInMember = false
    private var members = 0
    private var isFinished = false
    private var taken: Int64 = 0
    private var made: Int64 = 0

    var hasChecks: Bool { codec.hasChecks }

    /// Nil for the formats that are not compressed as a whole.
    init?(_ format: ArchiveFormat, _ source: any ByteSource, limits: ExtractionLimits, bufferSize: Int = 256 << 10) {
        let codec: (any Codec)? =
            switch format {
            case .tarGzip: GzipCodec()
            case .tarZstd: ZstdCodec()
            case .tarXz: XzCodec()
            case .tarBzip2: Bzip2Codec()
            case .tar, .zip: nil
            }
        guard let codec else { return nil }
        self.codec = codec
        self.source = source
        self.limits = limits
        buffer = .allocate(byteCount: bufferSize, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        var output = buffer
        while !isFinished && !output.isEmpty {
            if input.isEmpty { input = try source.nextBytes() }
            let isAtEnd = input.isEmpty
            if !isInMember {
                if isAtEnd {
                    guard members > 0 else { throw ArchiveError.damaged("an empty file") }
                    isFinished = true
                    break
                }
                if members > 0 && input[0] == 0 && codec.paddingUnit > 0 {
                    try readPadding()
                    break
                }
                try codec.begin()
                isInMember = true
            }
            let offered = input.count
            let room = output.count
            let isOver = try step(&output)
            let produced = room - output.count
            taken += Int64(offered - input.count)
            made += Int64(produced)
            if isOver {
                isInMember = false
                members += 1
            } else if isAtEnd && produced == 0 && room > 0 {
                throw ArchiveError.damaged("the \(codec.name) data ends too early: the file is truncated")
            }
            try checkLimits()
        }
        return UnsafeRawBufferPointer(rebasing: buffer.prefix(buffer.count - output.count))
    }

    /// Damage right behind a whole member is more likely something that was appended than a second member.
    private func step(_ output: inout UnsafeMutableRawBufferPointer) throws(ArchiveError) -> Bool {
        do throws(ArchiveError) {
            return try codec.step(&input, &output)
        } catch {
            guard members > 0, case .damaged(let reason, _) = error else { throw error }
            throw .damaged("behind the end of the first \(codec.name) data: \(reason)")
        }
    }

    private func readPadding() throws {
        var zeros = 0
        while !input.isEmpty {
            guard input.isAllZero else {
                throw ArchiveError.damaged("something follows the zeros behind the \(codec.name) data")
            }
            zeros += input.count
            input = try source.nextBytes()
        }
        guard zeros % codec.paddingUnit == 0 else {
            throw ArchiveError.damaged("\(zeros) zero bytes follow the \(codec.name) data")
        }
        isFinished = true
    }

    private func checkLimits() throws(ArchiveError) {
        // Headers and padding of a tar: at most a few blocks for each entry.
        let headers = Int64(clamping: limits.entries).multipliedReportingOverflow(by: 4096)
        let most = limits.bytes.value.addingReportingOverflow(headers.partialValue)
        if !headers.overflow && !most.overflow && made > most.partialValue { throw .limit(.bytes(limits.bytes)) }
        if made > limits.ratioFreeBytes.value && made / Int64(max(1, limits.ratio)) > taken {
            throw .limit(.ratio(limits.ratio))
        }
    }
}

/// RFC 1952 by ISA-L, which inflates several times as fast as zlib does and checks each member's CRC-32 and length, and the
/// CRC of a header that has one. It takes some sets of codes that zlib refuses, such as incomplete ones: what comes out of them
/// is checked all the same.
final class GzipCodec: Codec {
    let name = "gzip"
    let paddingUnit = 1
    let hasChecks = true
    private let state: OpaquePointer?
    private var hasHeader = false
    private var idleSteps = 0

    init() { state = amorce_gunzip_create() }
    deinit { amorce_gunzip_destroy(state) }

    func begin() throws(ArchiveError) {
        guard let state else { throw .unsupported("ISA-L does not start") }
        amorce_gunzip_begin(state)
        hasHeader = false
        idleSteps = 0
    }

    func step(
        _ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer
    ) throws(ArchiveError) -> Bool {
        let given = UInt32(clamping: input.count)
        let room = UInt32(clamping: output.count)
        var nextInput = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
        var nextOutput = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
        var inputLeft = given
        var outputLeft = room
        var code: Int32 = AMORCE_GUNZIP_DONE
        if !hasHeader {
            var flags: UInt32 = 0
            code = amorce_gunzip_header(state, &nextInput, &inputLeft, &flags)
            if code == AMORCE_GUNZIP_DONE {
                hasHeader = true
                // Section 2.3.1.2: reserved bits may announce a field that this decoder would take for data.
                if flags & 0xe0 != 0 { throw .damaged("the gzip data is damaged: unknown header flags") }
            }
        }
        if code == AMORCE_GUNZIP_DONE {
            code = amorce_gunzip_inflate(state, &nextInput, &inputLeft, &nextOutput, &outputLeft)
        }
        // What an error leaves in the counts means nothing.
        guard code >= 0 else { throw .damaged("the gzip data is damaged: \(Self.text(code))") }
        advance(&input, by: Int(given - inputLeft))
        advance(&output, by: Int(room - outputLeft))
        if code == AMORCE_GUNZIP_DONE { return true }
        // ISA-L always takes or makes something; if damage ever made it stand still, nothing else would end the loop.
        let isIdle = inputLeft == given && outputLeft == room && given > 0 && room > 0
        idleSteps = isIdle ? idleSteps + 1 : 0
        guard idleSteps < 8 else { throw .damaged("the gzip data is damaged: it does not go on") }
        return false
    }

    /// The errors of isa-l/igzip_lib.h.
    private static func text(_ code: Int32) -> String {
        switch code {
        case -1: "invalid block"
        case -2: "invalid symbol"
        case -3: "a distance that is too long"
        case -4: "no gzip header"
        case -5: "unknown compression method"
        case -6: "a checksum or a length that is not that of the contents"
        default: "error \(code)"
        }
    }
}

/// RFC 1951 (raw deflate) by zlib, as zip members hold it.
final class DeflateCodec: Codec {
    let name = "deflate"
    let paddingUnit = 0
    let hasChecks = false
    // zlib keeps a pointer to it: it must not move.
    private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
    private var isReady = false

    init() { stream.initialize(to: z_stream()) }

    deinit {
        if isReady { inflateEnd(stream) }
        stream.deallocate()
    }

    func begin() throws(ArchiveError) {
        // 15: the largest window; negative: no wrapper.
        let code = isReady ? inflateReset(stream) : amorce_inflate_init(stream, -15)
        guard code == Z_OK else { throw .unsupported("zlib does not start (\(code))") }
        isReady = true
    }

    func step(
        _ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer
    ) throws(ArchiveError) -> Bool {
        let given = UInt32(clamping: input.count)
        let room = UInt32(clamping: output.count)
        stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.pointee.avail_in = given
        stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_out = room
        let code = inflate(stream, Z_NO_FLUSH)
        advance(&input, by: Int(given - stream.pointee.avail_in))
        advance(&output, by: Int(room - stream.pointee.avail_out))
        switch code {
        case Z_STREAM_END: return true
        case Z_OK, Z_BUF_ERROR: return false
        default:
            let text = stream.pointee.msg.map { String(cString: $0) } ?? "error \(code)"
            throw .damaged("the \(name) data is damaged: \(text)")
        }
    }
}

/// RFC 8878 by libzstd.
final class ZstdCodec: Codec {
    let name = "zstd"
    let paddingUnit = 0
    private(set) var hasChecks = true
    private let context: OpaquePointer?
    /// The first five bytes of the frame: the magic number and the frame header descriptor.
    private var header: [UInt8] = []

    init() { context = ZSTD_createDCtx() }
    deinit { ZSTD_freeDCtx(context) }

    func begin() throws(ArchiveError) {
        // A window of 128 MiB, the most that zstd(1) itself takes without being told to: a frame may not ask for more memory.
        guard ZSTD_isError(ZSTD_DCtx_reset(context, ZSTD_reset_session_only)) == 0,
            ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 27)) == 0
        else { throw .unsupported("zstd does not start") }
        header.removeAll(keepingCapacity: true)
    }

    func step(
        _ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer
    ) throws(ArchiveError) -> Bool {
        // No more than the header until it is looked at.
        let offered =
            header.count < Self.headerLength ? min(input.count, Self.headerLength - header.count) : input.count
        var from = ZSTD_inBuffer(src: input.baseAddress, size: offered, pos: 0)
        var to = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
        let code = ZSTD_decompressStream(context, &to, &from)
        if ZSTD_isError(code) != 0 {
            // ZSTD_error_frameParameter_windowTooLarge of zstd_errors.h; functions return the negative.
            if code == -16 { throw .unsupported("the zstd data wants a window of more than 128 MiB (zstd --long)") }
            throw .damaged("the zstd data is damaged: \(String(cString: ZSTD_getErrorName(code)))")
        }
        if header.count < Self.headerLength {
            header.append(contentsOf: input.prefix(from.pos))
            try checkHeader()
        }
        advance(&input, by: from.pos)
        advance(&output, by: to.pos)
        return code == 0
    }

    private static let headerLength = 5

    private func checkHeader() throws(ArchiveError) {
        guard header.count == Self.headerLength else { return }
        let isFrame = header.starts(with: [0x28, 0xb5, 0x2f, 0xfd])
        let isSkippable = header[0] & 0xf0 == 0x50 && header[1...3] == [0x2a, 0x4d, 0x18]
        // libzstd may be built to read the frames of its own infancy, before the format was settled.
        guard isFrame || isSkippable else { throw .damaged("no zstd frame begins here") }
        // Bit 2 of the descriptor: Content_Checksum_flag.
        if isFrame && header[4] & 4 == 0 { hasChecks = false }
    }
}

/// The .xz file format by liblzma, one stream at a time.
final class XzCodec: Codec {
    let name = "xz"
    let paddingUnit = 4
    private(set) var hasChecks = true
    private let stream = UnsafeMutablePointer<lzma_stream>.allocate(capacity: 1)

    // All zero is LZMA_STREAM_INIT.
    init() { stream.initialize(to: lzma_stream()) }

    deinit {
        lzma_end(stream)
        stream.deallocate()
    }

    func begin() throws(ArchiveError) {
        // xz -9 wants 65 MiB.
        guard amorce_lzma_start(stream, 130 << 20) == LZMA_OK else { throw .unsupported("liblzma does not start") }
    }

    func step(
        _ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer
    ) throws(ArchiveError) -> Bool {
        stream.pointee.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_in = input.count
        stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_out = output.count
        let code = lzma_code(stream, LZMA_RUN)
        advance(&input, by: input.count - stream.pointee.avail_in)
        advance(&output, by: output.count - stream.pointee.avail_out)
        switch code {
        case LZMA_STREAM_END: return true
        case LZMA_OK, LZMA_BUF_ERROR: return false
        case LZMA_NO_CHECK:
            hasChecks = false
            return false
        case LZMA_UNSUPPORTED_CHECK: throw .unsupported("the xz data uses a check that is not known here")
        case LZMA_MEMLIMIT_ERROR: throw .unsupported("the xz data wants more than 130 MiB of memory")
        case LZMA_OPTIONS_ERROR: throw .unsupported("the xz data uses options that are not known here")
        case LZMA_FORMAT_ERROR: throw .damaged("no xz stream begins here")
        default: throw .damaged("the xz data is damaged (error \(code.rawValue))")
        }
    }
}

/// bzip2 by libbz2, which checks the CRC of each block and of the stream.
final class Bzip2Codec: Codec {
    let name = "bzip2"
    let paddingUnit = 0
    let hasChecks = true
    // libbz2 keeps a pointer to it: it must not move.
    private let stream = UnsafeMutablePointer<bz_stream>.allocate(capacity: 1)
    private var isReady = false

    init() { stream.initialize(to: bz_stream()) }

    deinit {
        if isReady { BZ2_bzDecompressEnd(stream) }
        stream.deallocate()
    }

    func begin() throws(ArchiveError) {
        if isReady { BZ2_bzDecompressEnd(stream) }
        stream.pointee = bz_stream()
        isReady = BZ2_bzDecompressInit(stream, 0, 0) == BZ_OK
        guard isReady else { throw .unsupported("libbz2 does not start") }
    }

    func step(
        _ input: inout UnsafeRawBufferPointer, _ output: inout UnsafeMutableRawBufferPointer
    ) throws(ArchiveError) -> Bool {
        let given = UInt32(clamping: input.count)
        let room = UInt32(clamping: output.count)
        stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: CChar.self))
        stream.pointee.avail_in = given
        stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: CChar.self)
        stream.pointee.avail_out = room
        let code = BZ2_bzDecompress(stream)
        advance(&input, by: Int(given - stream.pointee.avail_in))
        advance(&output, by: Int(room - stream.pointee.avail_out))
        switch code {
        case BZ_STREAM_END: return true
        case BZ_OK: return false
        default: throw .damaged("the bzip2 data is damaged (error \(code))")
        }
    }
}

private func advance(_ buffer: inout UnsafeRawBufferPointer, by count: Int) {
    buffer = UnsafeRawBufferPointer(rebasing: buffer.dropFirst(count))
}

private func advance(_ buffer: inout UnsafeMutableRawBufferPointer, by count: Int) {
    buffer = UnsafeMutableRawBufferPointer(rebasing: buffer.dropFirst(count))
}
