/// Unpacks one archive into an empty directory as its bytes arrive: read and hash on one thread, decompress and check on another,
/// names and files on the calling one. Nothing is written outside the directory, whatever the archive holds; when it throws, the
/// directory holds a part of the archive, and the caller removes it.
///
/// Success means that every byte of the object was read and hashed, every check of the compression format and of the archive's
/// end held, and everything is on disk.
public enum ArchiveExtraction {
    public struct Options: Sendable {
        public var format: ArchiveFormat
        /// Of the object as stored; a zip needs it, the others are checked against it where it is known.
        public var size: Int64?
        public var stripComponents = 0
        /// Of everything that is made; nil: whoever this process is. Needs the superuser.
        public var owner: (owner: UInt32, group: UInt32)?
        public var limits = ExtractionLimits()
        public var expectedSHA256: [UInt8]?

        public init(format: ArchiveFormat, size: Int64?) {
            self.format = format
            self.size = size
        }
    }

    public struct Result: Sendable, Equatable {
        /// Of the object as stored.
        public var sha256: [UInt8] = []
        public var files = 0
        public var directories = 0
        /// Symlinks and hard links.
        public var links = 0
        /// Of the files' contents, holes included.
        public var bytes: Int64 = 0
        public var compressedBytes: Int64 = 0
        /// Entries that stripping components left nothing of; the first hundred.
        public var skipped: [String] = []
        public var warnings: [String] = []
    }

    /// - Parameter open: the object's bytes from an offset to its end. A tar is opened once, at 0; a zip also near its end.
    /// - Throws: `ArchiveError`, `HostError` of the file system, `StopReason`, and whatever the source throws.
    public static func run(
        into directory: String, options: Options, stop: StopFlag, progress: ProgressHandler,
        open: (_ offset: Int64) throws -> any ByteSource
    ) throws -> Result {
        let passed = PassedBytes()
        let stored = HashingSource(counting: passed)
        let reader: any EntryReader
        var decoder: DecoderSource?
        if options.format == .zip {
            reader = try zipReader(stored, options, directory, open)
        } else {
            if let size = options.size { try checkRoom(directory, bytes: size) }
            try stored.begin(open(0))
            let head = HeadSource(stored)
            try check(head, is: options.format)
            var plain = head
            // What is compressed is read and hashed ahead of the decoder.
            if options.format != .tar {
                decoder = DecoderSource(options.format, try ReadAheadSource(head), limits: options.limits)
            }
            if let decoder {
                plain = HeadSource(decoder)
                try check(plain, is: .tar, inside: options.format)
            }
            reader = try TarReader(ReadAheadSource(plain))
        }

        var result = Result()
        try unpack(reader, into: directory, options, &result, stop: stop) { files in
            progress(Progress(bytes: passed.value, totalBytes: options.size, items: files))
        } whenRead: { result in
            guard let sha256 = stored.sha256 else { throw ArchiveError.damaged("the object was not read to its end") }
            result.sha256 = sha256
            result.compressedBytes = passed.value
            if let size = options.size, size != passed.value {
                throw ArchiveError.damaged("\(passed.value) bytes were delivered, and \(size) were promised")
            }
            if let expected = options.expectedSHA256, expected != sha256 {
                throw ArchiveError.checksumMismatch(expected: expected.hex, actual: sha256.hex)
            }
        }
        result.warnings += reader.warnings
        // zip checks each member's CRC-32.
        let hasChecks = decoder?.hasChecks ?? (options.format == .zip)
        if !hasChecks && options.expectedSHA256 == nil {
            result.warnings.append(
                "the archive holds no checksum of its contents, and none lies beside it: nothing vouches for them")
        }
        return result
    }

    private static func unpack(
        _ reader: any EntryReader, into directory: String, _ options: Options, _ result: inout Result, stop: StopFlag,
        progress: (Int) -> Void, whenRead: (inout Result) throws -> Void
    ) throws {
        var policy = ExtractionPolicy(limits: options.limits, stripComponents: options.stripComponents)
        var writer = try TreeWriter(
            directory: directory,
            owner: options.owner.map { TreeWriter.Ownership(owner: $0.owner, group: $0.group) },
            // A zip has one central directory, and no way to append: two entries of one name are a trick.
            replacesEarlier: options.format != .zip)
        while let entry = try reader.next() {
            try stop.check()
            switch try policy.decide(entry) {
            case .skip(let isStripped):
                if isStripped && entry.kind != .directory && result.skipped.count < 100 {
                    result.skipped.append(entry.shownName)
                }
            case .make(let member):
                // A sparse file may state far more than the archive holds.
                if entry.size > 64 << 20 { try checkRoom(directory, bytes: entry.size) }
                let files = writer.files
                try writer.make(member, size: entry.size, modified: entry.modified) { body in
                    try reader.contents { offset, bytes in
                        try stop.check()
                        try body(offset, bytes)
                        progress(files)
                    }
                }
                if member.kind == .regular { result.bytes += entry.size }
            }
            progress(writer.files)
        }
        try reader.finish(stop: stop)
        try whenRead(&result)
        try writer.finish(stop: stop)
        result.files = writer.files
        result.directories = writer.directoryCount
        result.links = writer.links
    }

    private static func zipReader(
        _ stored: HashingSource, _ options: Options, _ directory: String, _ open: (Int64) throws -> any ByteSource
    ) throws -> any EntryReader {
        guard let size = options.size else {
            throw ArchiveError.unsupported("the store does not tell the object's size, and a zip is read from its end")
        }
        try check(HeadSource(open(0)), is: .zip)
        let reader = try ZipReader(size: size, limits: options.limits, open: open) {
            try stored.begin(open(0))
            return try ReadAheadSource(stored)
        }
        try checkRoom(directory, bytes: reader.totalSize, inodes: Int64(reader.totalEntries))
        return reader
    }

    private static func check(_ source: HeadSource, is format: ArchiveFormat, inside outer: ArchiveFormat? = nil) throws
    {
        let found = ArchiveFormat.recognise(try source.head(ArchiveFormat.headLength))
        guard found != .format(format) else { return }
        let expected = outer.map { "\(format.article) inside \($0.article)" } ?? format.article
        throw ArchiveError.wrongFormat(expected: expected, looksLike: found.description)
    }

    private static func checkRoom(_ directory: String, bytes: Int64, inodes: Int64 = 0) throws {
        let room = try Files.room(at: directory)
        if bytes > room.bytes { throw ArchiveError.noRoom(needed: ByteCount(bytes), available: ByteCount(room.bytes)) }
        // 0: this file system has no fixed number of inodes (btrfs, some tmpfs), or none is left, which the first file will tell.
        if inodes > room.inodes && room.inodes > 0 {
            throw ArchiveError.noInodes(needed: inodes, available: room.inodes)
        }
    }
}
