internal import CZlib
internal import Glibc

/// A zip archive (APPNOTE.TXT 6.3.10: stored and deflated members, zip64) whose central directory decides, read in the order
/// in which the members lie, so that one pass over the whole object serves the hash and the files.
///
/// Not libarchive's reader: in the C locale, the only one that a static binary is sure to have, that returns no name at all
/// for a member marked as UTF-8. Strict where readers differ: the archive begins at the first byte and ends with its end
/// record, members do not overlap, and each local header must agree with the central directory.
final class ZipReader: EntryReader {
    private let cursor: ByteCursor
    private let limits: ExtractionLimits
    private let directory: [UInt8]
    private let directoryOffset: Int64
    /// Where each member's record begins in `directory`, in the order of the members in the file.
    private let records: [Int]
    private var nextRecord = 0
    private var current: Record?
    private let deflate = DeflateCodec()
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
    private var made: Int64 = 0
    private(set) var warnings: [String] = []

    let totalSize: Int64
    var totalEntries: Int { records.count }

    fileprivate struct Record {
        var name: [UInt8]
        var system: UInt8
        var flags: UInt16
        var method: UInt16
        var time: (UInt16, UInt16)
        var checksum: UInt32
        var packed: Int64
        var size: Int64
        var attributes: UInt32
        var offset: Int64
        var modified: Int64?
        var length: Int

        var shownName: String { Printable.text(name) }
    }

    /// - Parameters:
    ///   - open: the object's bytes from an offset on; called for the end, the central directory and then the whole.
    ///   - size: of the object, which must be known: a zip is read from its end.
    init(
        size: Int64, limits: ExtractionLimits, open: (Int64) throws -> any ByteSource,
        whole: () throws -> any ByteSource
    ) throws {
        self.limits = limits
        let end = try EndRecord.find(size: size, open: open)
        guard end.directorySize <= limits.directorySize.value else {
            throw ArchiveError.limit(.directorySize(limits.directorySize))
        }
        // A record has 46 bytes at least: a count that cannot be true must not reserve memory.
        guard end.entries <= end.directorySize / 46 else {
            throw ArchiveError.damaged("the zip's end record does not add up")
        }
        guard end.entries <= Int64(limits.entries) else { throw ArchiveError.limit(.entries(limits.entries)) }
        let bytes = try ByteCursor(open(end.directoryOffset)).take(Int(end.directorySize))
        directory = bytes
        directoryOffset = end.directoryOffset
        var found: [(offset: Int64, record: Int)] = []
        found.reserveCapacity(Int(end.entries))
        var position = 0
        var sum: Int64 = 0
        for _ in 0..<end.entries {
            let record = try Self.record(in: bytes, at: position)
            let total = sum.addingReportingOverflow(record.size)
            guard !total.overflow, total.partialValue <= limits.bytes.value else {
                throw ArchiveError.limit(.bytes(limits.bytes), entry: record.shownName)
            }
            sum = total.partialValue
            found.append((record.offset, position))
            position += record.length
        }
        guard position == bytes.count else { throw ArchiveError.damaged("the zip's central directory does not add up") }
        found.sort { ($0.offset, $0.record) < ($1.offset, $1.record) }
        records = found.map(\.record)
        totalSize = sum
        cursor = ByteCursor(try whole())
    }

    deinit { buffer.deallocate() }

    func next() throws -> ArchiveEntry? {
        if current != nil { try contents { _, _ in } }
        guard nextRecord < records.count else { return nil }
        let record = try Self.record(in: directory, at: records[nextRecord])
        nextRecord += 1
        try readLocalHeader(record)
        current = record
        var entry = ArchiveEntry(
            name: record.name, kind: .regular, size: record.size, mode: 0,
            modified: (record.modified ?? dosTime(record), 0))
        // 3: Unix, 19: macOS; both keep st_mode in the upper half of the external attributes.
        let mode = record.system == 3 || record.system == 19 ? record.attributes >> 16 : 0
        entry.mode = mode & 0o7777
        switch mode & UInt32(S_IFMT) {
        case UInt32(S_IFLNK):
            guard record.size <= Int64(limits.pathLength) else {
                throw ArchiveError.limit(.linkLength(limits.pathLength), entry: record.shownName)
            }
            var target: [UInt8] = []
            try contents { target.append(contentsOf: $1) }
            entry.kind = .symlink(target: target)
            entry.size = 0
        case UInt32(S_IFDIR): entry.kind = .directory
        case UInt32(S_IFREG), 0:
            // 0x10: the directory attribute of MS-DOS.
            let isDirectory =
                record.name.last == UInt8(ascii: "/") || record.system == 0 && record.attributes & 0x10 != 0
            entry.kind = isDirectory ? .directory : .regular
        default: entry.kind = .special("special file")
        }
        if entry.kind == .directory && record.size > 0 {
            throw ArchiveError.damaged("a directory with contents", entry: record.shownName)
        }
        if entry.mode == 0 { entry.mode = entry.kind == .directory ? 0o755 : 0o644 }
        return entry
    }

    private func readLocalHeader(_ record: Record) throws {
        guard record.offset >= cursor.position else {
            throw ArchiveError.damaged("members overlap", entry: record.shownName)
        }
        try cursor.skip(record.offset - cursor.position)
        let header = Fields(try cursor.take(30))
        guard header.long(0) == 0x0403_4b50 else {
            throw ArchiveError.damaged("no member begins where the central directory says", entry: record.shownName)
        }
        let name = try cursor.take(Int(header.short(26)))
        guard name == record.name else { throw ArchiveError.refused(.namesDisagree, entry: record.shownName) }
        try cursor.skip(Int64(header.short(28)))
        guard cursor.position + record.packed <= directoryOffset else {
            throw ArchiveError.damaged("a member reaches into the central directory", entry: record.shownName)
        }
        if record.flags & 0x2041 != 0 || header.short(6) & 0x2041 != 0 {
            throw ArchiveError.unsupported("the member is encrypted", entry: record.shownName)
        }
        guard record.method == 0 || record.method == 8 else {
            throw ArchiveError.unsupported("compression method \(record.method) of zip", entry: record.shownName)
        }
        // Bit 3: the local header was written before the contents, and checksum and sizes follow them.
        let followsLater = header.short(6) & 8 != 0
        let agrees =
            header.short(8) == record.method
            && (followsLater || header.long(14) == record.checksum)
            && (followsLater || header.long(18) == .max || Int64(header.long(18)) == record.packed)
            && (followsLater || header.long(22) == .max || Int64(header.long(22)) == record.size)
        guard agrees, record.method == 8 || record.packed == record.size else {
            throw ArchiveError.damaged(
                "the member's header disagrees with the central directory", entry: record.shownName)
        }
    }

    func contents(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        guard let record = current else { return }
        current = nil
        var left = record.packed
        var done: Int64 = 0
        var checksum: uLong = crc32(0, nil, 0)
        func pass(_ bytes: UnsafeRawBufferPointer) throws {
            guard !bytes.isEmpty else { return }
            guard Int64(bytes.count) <= record.size - done else {
                throw ArchiveError.damaged("more data than stated", entry: record.shownName)
            }
            made += Int64(bytes.count)
            if made > limits.ratioFreeBytes.value && made / Int64(max(1, limits.ratio)) > cursor.position {
                throw ArchiveError.limit(.ratio(limits.ratio), entry: record.shownName)
            }
            checksum = crc32_z(checksum, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
            try body(done, bytes)
            done += Int64(bytes.count)
        }
        if record.method == 0 {
            while left > 0 {
                let piece = try cursor.peek(atMost: left)
                try pass(piece)
                cursor.advance(piece.count)
                left -= Int64(piece.count)
            }
        } else {
            try deflate.begin()
            var isAtEnd = false
            while !isAtEnd {
                let piece = left > 0 ? try cursor.peek(atMost: left) : UnsafeRawBufferPointer(start: nil, count: 0)
                var input = piece
                var output = buffer
                do throws(ArchiveError) {
                    isAtEnd = try deflate.step(&input, &output)
                } catch {
                    throw ArchiveError.damaged(error.reason, entry: record.shownName)
                }
                let count = buffer.count - output.count
                if !isAtEnd && count == 0 && input.count == piece.count {
                    throw ArchiveError.damaged("the compressed data ends too early", entry: record.shownName)
                }
                try pass(UnsafeRawBufferPointer(rebasing: buffer.prefix(count)))
                cursor.advance(piece.count - input.count)
                left -= Int64(piece.count - input.count)
            }
        }
        guard left == 0, done == record.size, UInt32(truncatingIfNeeded: checksum) == record.checksum else {
            throw ArchiveError.damaged("the contents do not match their checksum and size", entry: record.shownName)
        }
    }

    func finish(stop: StopFlag) throws {
        try cursor.skip(directoryOffset - cursor.position)
        // What the files were made after must be what was hashed.
        guard try cursor.take(directory.count) == directory else {
            throw ArchiveError.damaged("the central directory changed while it was read")
        }
        while try !cursor.isAtEnd() {
            try stop.check()
            cursor.advance(cursor.chunk.count)
        }
    }

    /// MS-DOS has no time zone: taken as UTC. Most writers add the true time in a field of its own.
    private func dosTime(_ record: Record) -> Int64 {
        let (time, date) = record.time
        return UTCStamp.seconds(
            year: 1980 + Int(date >> 9), month: Int(date >> 5 & 15), day: Int(date & 31), hour: Int(time >> 11),
            minute: Int(time >> 5 & 63), second: Int(time & 31) * 2) ?? 0
    }

    private static func record(in bytes: [UInt8], at start: Int) throws(ArchiveError) -> Record {
        guard bytes.count - start >= 46 else { throw .damaged("the zip's central directory is cut short") }
        let header = Fields(bytes, at: start)
        let nameLength = Int(header.short(28))
        let extraLength = Int(header.short(30))
        let length = 46 + nameLength + extraLength + Int(header.short(32))
        guard header.long(0) == 0x0201_4b50, bytes.count - start >= length else {
            throw .damaged("the zip's central directory is damaged")
        }
        let name = Array(bytes[start + 46..<start + 46 + nameLength])
        var record = Record(
            name: name, system: UInt8(header.short(4) >> 8), flags: header.short(8), method: header.short(10),
            time: (header.short(12), header.short(14)), checksum: header.long(16), packed: Int64(header.long(20)),
            size: Int64(header.long(24)), attributes: header.long(38), offset: Int64(header.long(42)), modified: nil,
            length: length)
        try record.readExtra(bytes, from: start + 46 + nameLength, count: extraLength)
        guard record.packed >= 0, record.size >= 0, record.offset >= 0 else {
            throw .damaged("a size that cannot be", entry: record.shownName)
        }
        return record
    }

    /// Where the central directory lies, from the record at the very end.
    private struct EndRecord {
        var entries: Int64
        var directorySize: Int64
        var directoryOffset: Int64

        static func find(size: Int64, open: (Int64) throws -> any ByteSource) throws -> EndRecord {
            // The record, its comment of at most 65535 bytes, and the zip64 locator before it.
            let tailLength = Int(min(size, 22 + 65535 + 20))
            guard size >= 22 else { throw ArchiveError.damaged("too small for a zip archive: it is truncated") }
            let tailStart = size - Int64(tailLength)
            let tail = try ByteCursor(open(tailStart)).take(tailLength)
            var position = tail.count - 22
            while position >= 0 {
                if tail[position] == 0x50, Fields(tail, at: position).long(0) == 0x0605_4b50,
                    position + 22 + Int(Fields(tail, at: position).short(20)) == tail.count
                {
                    return try read(tail, at: position, tailStart: tailStart, open: open)
                }
                position -= 1
            }
            throw ArchiveError.damaged("the zip has no end record: it is truncated, or something follows it")
        }

        private static func read(
            _ tail: [UInt8], at position: Int, tailStart: Int64, open: (Int64) throws -> any ByteSource
        ) throws -> EndRecord {
            let fields = Fields(tail, at: position)
            var end = EndRecord(
                entries: Int64(fields.short(10)), directorySize: Int64(fields.long(12)),
                directoryOffset: Int64(fields.long(16)))
            var directoryEnd = tailStart + Int64(position)
            let disks = [fields.short(4), fields.short(6)]
            let isLarge = fields.short(10) == .max || fields.long(12) == .max || fields.long(16) == .max
            if isLarge, position >= 20, Fields(tail, at: position - 20).long(0) == 0x0706_4b50 {
                let place = Fields(tail, at: position - 20).wide(8)
                guard place >= 0, place < directoryEnd else {
                    throw ArchiveError.damaged("the zip64 end record is missing")
                }
                let large = Fields(try ByteCursor(open(place)).take(56))
                guard large.long(0) == 0x0606_4b50, large.wide(4) >= 44, large.wide(4) < 65536,
                    place + 12 + large.wide(4) == directoryEnd - 20
                else { throw ArchiveError.damaged("the zip64 end record is damaged") }
                end = EndRecord(entries: large.wide(32), directorySize: large.wide(40), directoryOffset: large.wide(48))
                directoryEnd = place
            } else if disks != [0, 0] {
                throw ArchiveError.unsupported("a zip archive of several parts")
            }
            let (sum, overflow) = end.directoryOffset.addingReportingOverflow(end.directorySize)
            guard end.entries >= 0, end.directorySize >= 0, end.directoryOffset >= 0, !overflow, sum == directoryEnd
            else {
                throw ArchiveError.damaged("the zip's parts do not lie where its end record says")
            }
            return end
        }
    }
}

extension ZipReader.Record {
    fileprivate mutating func readExtra(_ bytes: [UInt8], from start: Int, count: Int) throws(ArchiveError) {
        var position = start
        let end = start + count
        while end - position >= 4 {
            let identifier = Fields(bytes, at: position).short(0)
            let size = Int(Fields(bytes, at: position).short(2))
            position += 4
            guard size <= end - position else { return }
            if identifier == 0x0001 {
                // Zip64: only the fields that are all ones in the record, in this order.
                var field = position
                func wide() throws(ArchiveError) -> Int64 {
                    guard position + size - field >= 8 else {
                        throw .damaged("a zip64 field is cut short", entry: shownName)
                    }
                    defer { field += 8 }
                    return Fields(bytes, at: field).wide(0)
                }
                if self.size == Int64(UInt32.max) { self.size = try wide() }
                if packed == Int64(UInt32.max) { packed = try wide() }
                if offset == Int64(UInt32.max) { offset = try wide() }
            } else if identifier == 0x5455, size >= 5, bytes[position] & 1 != 0 {
                // Info-ZIP's extended timestamp: the modification time in seconds, signed.
                modified = Int64(Int32(bitPattern: Fields(bytes, at: position).long(1)))
            }
            position += size
        }
    }
}

/// Little-endian numbers in bytes whose length the caller has checked.
private struct Fields {
    let bytes: [UInt8]
    let start: Int

    init(_ bytes: [UInt8], at start: Int = 0) {
        self.bytes = bytes
        self.start = start
    }

    func short(_ offset: Int) -> UInt16 { UInt16(bytes[start + offset]) | UInt16(bytes[start + offset + 1]) << 8 }
    func long(_ offset: Int) -> UInt32 { UInt32(short(offset)) | UInt32(short(offset + 2)) << 16 }
    func wide(_ offset: Int) -> Int64 {
        Int64(bitPattern: UInt64(long(offset)) | UInt64(long(offset + 4)) << 32)
    }
}

/// A source read in portions of the reader's own choosing.
private final class ByteCursor {
    private let source: any ByteSource
    private(set) var chunk = UnsafeRawBufferPointer(start: nil, count: 0)
    private(set) var position: Int64 = 0

    init(_ source: any ByteSource) { self.source = source }

    func isAtEnd() throws -> Bool {
        if chunk.isEmpty { chunk = try source.nextBytes() }
        return chunk.isEmpty
    }

    /// The next bytes, one at least.
    func peek(atMost limit: Int64) throws -> UnsafeRawBufferPointer {
        if try isAtEnd() { throw ArchiveError.damaged("the zip ends too early: it is truncated") }
        return UnsafeRawBufferPointer(rebasing: chunk.prefix(Int(clamping: limit)))
    }

    func advance(_ count: Int) {
        chunk = UnsafeRawBufferPointer(rebasing: chunk.dropFirst(count))
        position += Int64(count)
    }

    func take(_ count: Int) throws -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(count)
        while result.count < count {
            let piece = try peek(atMost: Int64(count - result.count))
            result.append(contentsOf: piece)
            advance(piece.count)
        }
        return result
    }

    func skip(_ count: Int64) throws {
        var left = count
        while left > 0 {
            let piece = try peek(atMost: left)
            advance(piece.count)
            left -= Int64(piece.count)
        }
    }
}
