internal import CZstd
internal import Glibc

/// Makes independent zstd frames (RFC 8878), each with its contents' size and checksum in it. Belongs to one thread.
final class ZstdFramePacker {
    private let context: OpaquePointer

    init() throws(HostError) {
        guard let context = ZSTD_createCCtx() else { throw HostError("ZSTD_createCCtx", "", errno: ENOMEM) }
        self.context = context
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
    }

    deinit { ZSTD_freeCCtx(context) }

    /// - Parameter level: zstd's; a strongly negative one hardly looks for matches, for what is compressed already.
    func pack(_ bytes: UnsafeRawBufferPointer, level: Int) throws -> [UInt8] {
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, CInt(level))
        let most = ZSTD_compressBound(bytes.count)
        return try [UInt8](unsafeUninitializedCapacity: most) { room, count in
            let made = ZSTD_compress2(context, room.baseAddress, most, bytes.baseAddress, bytes.count)
            if ZSTD_isError(made) != 0 {
                throw ArchiveError.unsupported("zstd cannot pack: \(String(cString: ZSTD_getErrorName(made)))")
            }
            count = made
        }
    }
}

/// Unpacks one frame of known size. Belongs to one thread.
final class ZstdFrameReader {
    private let context: OpaquePointer

    /// - Parameter checks: whether a frame's own checksum is compared too. Where its SHA-256 was, the contents can differ only by
    ///   a fault of this machine's memory.
    init(checks: Bool) throws(HostError) {
        guard let context = ZSTD_createDCtx() else { throw HostError("ZSTD_createDCtx", "", errno: ENOMEM) }
        self.context = context
        if !checks { amorce_zstd_ignore_checksums(context) }
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Into `buffer`, which holds the contents alone afterwards. Anything but exactly one frame (or several of them) of `size`
    /// bytes is damage.
    func unpack(_ frame: UnsafeRawBufferPointer, size: Int, into buffer: PackBuffer) throws {
        buffer.removeAll(reserving: size)
        let room = buffer.extend(by: size)
        let made = ZSTD_decompressDCtx(context, room.baseAddress, size, frame.baseAddress, frame.count)
        if ZSTD_isError(made) != 0 {
            throw ArchiveError.damaged("a frame does not unpack: \(String(cString: ZSTD_getErrorName(made)))")
        }
        if made != size { throw ArchiveError.damaged("a frame holds \(made) bytes in place of \(size)") }
    }
}

/// Text that is compressed while it is written, as zstd frames one after the other: the manifest of a backup. Belongs to one
/// thread.
public final class ZstdText {
    private let context: OpaquePointer
    private let room: UnsafeMutableRawBufferPointer
    /// The frames that are finished, and what is known of the one that is not.
    private var packed: [UInt8] = []

    public init() throws(HostError) {
        guard let context = ZSTD_createCCtx() else { throw HostError("ZSTD_createCCtx", "", errno: ENOMEM) }
        self.context = context
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3)
        room = .allocate(byteCount: ZSTD_CStreamOutSize(), alignment: 16)
    }

    deinit {
        ZSTD_freeCCtx(context)
        room.deallocate()
    }

    public func append(_ text: [UInt8]) throws { try text.withUnsafeBytes { try run($0, ZSTD_e_continue) } }

    /// Ends the frame, and returns the bytes of all that were written since the last call.
    public func finishFrame() throws -> [UInt8] {
        try run(UnsafeRawBufferPointer(start: nil, count: 0), ZSTD_e_end)
        defer { packed = [] }
        return packed
    }

    private func run(_ bytes: UnsafeRawBufferPointer, _ directive: ZSTD_EndDirective) throws {
        var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
        while true {
            var output = ZSTD_outBuffer(dst: room.baseAddress, size: room.count, pos: 0)
            let left = ZSTD_compressStream2(context, &output, &input, directive)
            if ZSTD_isError(left) != 0 {
                throw ArchiveError.unsupported("zstd cannot pack: \(String(cString: ZSTD_getErrorName(left)))")
            }
            packed.append(contentsOf: UnsafeRawBufferPointer(rebasing: room.prefix(output.pos)))
            if directive == ZSTD_e_end ? left == 0 : input.pos == input.size { return }
        }
    }
}

/// The lines of a zstd-compressed text, unpacked as they are asked for. Belongs to one thread.
public final class ZstdLines {
    private let source: any ByteSource
    private var waiting: [UInt8] = []
    private var position = 0
    private var isAtEnd = false
    /// No line and no block of a manifest is as long as this.
    private static let most = 64 << 20

    /// Of bytes in memory.
    public convenience init(_ packed: [UInt8]) throws { try self.init(MemorySource(packed)) }

    /// Of a source whose first bytes alone may be wanted.
    public init(_ source: any ByteSource) throws {
        var limits = ExtractionLimits()
        limits.ratio = 10_000
        guard let decoder = DecoderSource(.tarZstd, source, limits: limits) else {
            throw ArchiveError.unsupported("zstd cannot be read")
        }
        self.source = decoder
    }

    /// The next line without its newline, or nil at the end, which must come right behind a newline.
    public func next() throws -> [UInt8]? {
        var searched = position
        while true {
            if let end = waiting[searched...].firstIndex(of: 0x0a) {
                defer { position = end + 1 }
                return Array(waiting[position..<end])
            }
            searched = waiting.count - position
            if try !readMore() {
                if position < waiting.count { throw ArchiveError.damaged("the last line has no end") }
                return nil
            }
        }
    }

    /// Exactly that many bytes.
    public func take(_ count: Int) throws -> [UInt8] {
        guard count >= 0, count <= Self.most else { throw ArchiveError.damaged("a block of \(count) bytes") }
        while waiting.count - position < count {
            if try !readMore() { throw ArchiveError.damaged("it ends too early") }
        }
        defer { position += count }
        return Array(waiting[position..<(position + count)])
    }

    private func readMore() throws -> Bool {
        if isAtEnd { return false }
        let bytes = try source.nextBytes()
        if bytes.isEmpty {
            isAtEnd = true
            return false
        }
        if position > 0 {
            waiting.removeSubrange(..<position)
            position = 0
        }
        guard waiting.count + bytes.count <= Self.most + (1 << 20) else {
            throw ArchiveError.damaged("a line without end")
        }
        waiting.append(contentsOf: bytes)
        return true
    }
}

/// Bytes that are in memory already, handed out in chunks.
final class MemorySource: ByteSource {
    private let storage: UnsafeMutableRawBufferPointer
    private var position = 0

    init(_ bytes: [UInt8]) {
        storage = .allocate(byteCount: bytes.count, alignment: 16)
        storage.copyBytes(from: bytes)
    }

    deinit { storage.deallocate() }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        let end = min(storage.count, position + 256 << 10)
        defer { position = end }
        return UnsafeRawBufferPointer(rebasing: storage[position..<end])
    }
}
