internal import CArchive
internal import Glibc

/// A tar archive (v7, ustar, GNU, pax; sparse files included) by libarchive, with no other format and no filter enabled: a
/// filter could start helper programs, and its idea of a good end is not ours.
///
/// The end is checked here: libarchive takes a tar that is cut at the boundary of a member for a complete one. POSIX.1 wants
/// two blocks of zeros, so behind the place where the last header was looked for there must be 1024 bytes or more, all zero, to
/// the end of the stream.
final class TarReader: EntryReader {
    private let archive: OpaquePointer
    private let feed: Feed
    private(set) var warnings: [String] = []
    private var current = ""

    /// What libarchive's callback reads from. It remembers how the stream ended and which error stopped it.
    private final class Feed {
        let source: any ByteSource
        var failure: (any Error)?
        var total: Int64 = 0
        var trailingZeros: Int64 = 0

        init(_ source: any ByteSource) { self.source = source }

        func next() -> UnsafeRawBufferPointer? {
            do {
                let bytes = try source.nextBytes()
                total += Int64(bytes.count)
                let zeros = bytes.trailingZeros
                trailingZeros = zeros == bytes.count ? trailingZeros + Int64(zeros) : Int64(zeros)
                return bytes
            } catch {
                failure = error
                return nil
            }
        }
    }

    init(_ source: any ByteSource) throws {
        guard let archive = archive_read_new() else { throw HostError("archive_read_new", "", errno: ENOMEM) }
        self.archive = archive
        feed = Feed(source)
        archive_read_support_format_tar(archive)
        let code = archive_read_open(
            archive, Unmanaged.passUnretained(feed).toOpaque(), nil,
            { _, context, buffer in
                guard let context, let buffer else { return -1 }
                guard let bytes = Unmanaged<Feed>.fromOpaque(context).takeUnretainedValue().next() else { return -1 }
                buffer.pointee = bytes.baseAddress
                return bytes.count
            }, nil)
        if code != ARCHIVE_OK { throw failure(code) }
    }

    // The feed outlives the archive: stored properties are released after this.
    deinit { archive_read_free(archive) }

    func next() throws -> ArchiveEntry? {
        var raw: OpaquePointer?
        let code = archive_read_next_header(archive, &raw)
        if code == ARCHIVE_EOF { return nil }
        guard code == ARCHIVE_OK || code == ARCHIVE_WARN, let raw else { throw failure(code) }
        let name = bytes(archive_entry_pathname(raw))
        current = Printable.text(name)
        if code == ARCHIVE_WARN { try note(archive_error_string(archive).map { String(cString: $0) } ?? "") }
        return ArchiveEntry(
            name: name, kind: kind(of: raw), size: archive_entry_size(raw),
            mode: UInt32(archive_entry_perm(raw)) & 0o7777,
            modified: archive_entry_mtime_is_set(raw) != 0
                ? (Int64(archive_entry_mtime(raw)), Int(archive_entry_mtime_nsec(raw))) : nil)
    }

    private func kind(of raw: OpaquePointer) -> ArchiveEntry.Kind {
        if let target = archive_entry_hardlink(raw) { return .hardLink(target: bytes(target)) }
        switch archive_entry_filetype(raw) {
        case S_IFREG: return .regular
        case S_IFDIR: return .directory
        case S_IFLNK: return .symlink(target: bytes(archive_entry_symlink(raw)))
        case S_IFIFO: return .special("FIFO")
        case S_IFSOCK: return .special("socket")
        case S_IFCHR, S_IFBLK: return .special("device")
        default: return .special("special file")
        }
    }

    /// The C locale of a static binary cannot express a UTF-8 name of a pax header. libarchive then says so and hands out the
    /// name's own bytes, which is what is wanted. It has no code for this, only words.
    private func note(_ text: String) throws {
        if text.contains("can't be converted") || text.contains("cannot be converted") { return }
        if warnings.count < 50 { warnings.append("\(current): \(Printable.text(text))") }
    }

    func contents(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        while true {
            var pointer: UnsafeRawPointer?
            var size = 0
            var offset: Int64 = 0
            let code = archive_read_data_block(archive, &pointer, &size, &offset)
            if code == ARCHIVE_EOF { return }
            guard code == ARCHIVE_OK || code == ARCHIVE_WARN else { throw failure(code) }
            if code == ARCHIVE_WARN { try note(archive_error_string(archive).map { String(cString: $0) } ?? "") }
            if size > 0 { try body(offset, UnsafeRawBufferPointer(start: pointer, count: size)) }
        }
    }

    func finish(stop: StopFlag) throws {
        let headerPosition = archive_read_header_position(archive)
        while true {
            try stop.check()
            guard let bytes = feed.next() else {
                throw feed.failure ?? ArchiveError.damaged("the tar archive ends in an error")
            }
            if bytes.isEmpty { break }
        }
        let rest = feed.total - headerPosition
        if rest < 1024 && feed.trailingZeros >= rest {
            throw ArchiveError.damaged("the tar archive has no end mark: it is truncated")
        }
        if feed.trailingZeros < rest {
            throw ArchiveError.damaged("something other than zeros follows the end of the tar archive")
        }
    }

    /// The error of the source, where that is what stopped libarchive; else libarchive's own.
    private func failure(_ code: CInt) -> any Error {
        if let failure = feed.failure { return failure }
        if archive_errno(archive) == ENOMEM { return HostError("archive_read", current, errno: ENOMEM) }
        let text = archive_error_string(archive).map { Printable.text(String(cString: $0)) } ?? "error \(code)"
        return ArchiveError.damaged("the tar archive is damaged: \(text)", entry: current.isEmpty ? nil : current)
    }

    private func bytes(_ text: UnsafePointer<CChar>?) -> [UInt8] {
        text.map { Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) } ?? []
    }
}
