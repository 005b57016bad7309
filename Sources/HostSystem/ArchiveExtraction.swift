/// Unpacks one archive into an empty directory as its bytes arrive: hash, decompress and check on a thread of its own, names on
/// the calling one, files on several. Nothing is written outside the directory, whatever the archive holds; when it throws, the
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
        /// That write.
        public var threads = 2

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
        let archive = try OpenArchive(options, roomIn: directory, open)
        let root = try TreeRoot(
            directory: directory, owner: options.owner.map { TreeRoot.Ownership(owner: $0.owner, group: $0.group) })
        // A zip has one central directory, and no way to append: two entries of one name are a trick.
        let writer = try ParallelTreeWriter(
            root, replacesEarlier: options.format != .zip, threads: options.threads)
        var result = Result()
        try archive.entries(&result, stop: stop) { entry, member in
            // A sparse file may state far more than the archive holds.
            if entry.size > 64 << 20 { try TreeRoot.checkRoom(at: directory, bytes: entry.size) }
            let files = writer.files
            try writer.make(member, size: entry.size, modified: entry.modified, stop: stop) { body in
                try archive.reader.contents { offset, bytes in
                    try stop.check()
                    try body(offset, bytes)
                    progress(archive.progress(files: files))
                }
            }
            progress(archive.progress(files: files))
        }
        try writer.finish(stop: stop)
        result.files = writer.files
        result.directories = writer.directoryCount
        result.links = writer.links
        return result
    }

    /// Reads the archive with every check, and writes nothing. Directories that no entry tells of are not counted.
    public static func verify(
        options: Options, stop: StopFlag, progress: ProgressHandler, open: (_ offset: Int64) throws -> any ByteSource
    ) throws -> Result {
        let archive = try OpenArchive(options, roomIn: nil, open)
        var files = 0
        var directories = 0
        var links = 0
        var result = Result()
        try archive.entries(&result, stop: stop) { entry, member in
            switch member.kind {
            case .regular: files += 1
            case .directory: directories += 1
            case .symlink, .hardLink: links += 1
            }
            var end: Int64 = 0
            try archive.reader.contents { offset, bytes in
                try stop.check()
                guard offset >= end, offset <= entry.size, Int64(bytes.count) <= entry.size - offset else {
                    throw ArchiveError.damaged("the contents do not lie within the stated size", entry: entry.shownName)
                }
                end = offset + Int64(bytes.count)
                progress(archive.progress(files: files))
            }
        }
        (result.files, result.directories, result.links) = (files, directories, links)
        return result
    }

    /// An archive whose entries are about to be read.
    private struct OpenArchive {
        let reader: any EntryReader
        private let options: Options
        private let stored: HashingSource
        private let passed = PassedBytes()
        private let decoder: DecoderSource?

        /// - Parameter directory: where the entries will be written; room for them is looked for at once.
        init(_ options: Options, roomIn directory: String?, _ open: (Int64) throws -> any ByteSource) throws {
            self.options = options
            stored = HashingSource(counting: passed)
            if options.format == .zip {
                reader = try zipReader(stored, options, directory, open)
                decoder = nil
                return
            }
            if let size = options.size, let directory { try TreeRoot.checkRoom(at: directory, bytes: size) }
            try stored.begin(open(0))
            let head = HeadSource(stored)
            try check(head, is: options.format)
            // What is compressed is read and hashed ahead of the decoder.
            decoder =
                options.format == .tar
                ? nil : DecoderSource(options.format, try ReadAheadSource(head), limits: options.limits)
            var plain = head
            if let decoder {
                plain = HeadSource(decoder)
                try check(plain, is: .tar, inside: options.format)
            }
            reader = try TarReader(ReadAheadSource(plain))
        }

        func progress(files: Int) -> Progress {
            Progress(bytes: passed.value, totalBytes: options.size, items: files)
        }

        /// Hands out every entry that the policy lets pass, then reads to the end and checks what can be checked only there. Fills
        /// in what the result says of the archive itself.
        func entries(
            _ result: inout Result, stop: StopFlag, make: (ArchiveEntry, ExtractionPolicy.Member) throws -> Void
        ) throws {
            var policy = ExtractionPolicy(limits: options.limits, stripComponents: options.stripComponents)
            while let entry = try reader.next() {
                try stop.check()
                switch try policy.decide(entry) {
                case .skip(let isStripped):
                    if isStripped && entry.kind != .directory && result.skipped.count < 100 {
                        result.skipped.append(entry.shownName)
                    }
                case .make(let member):
                    try make(entry, member)
                    if member.kind == .regular { result.bytes += entry.size }
                }
            }
            try reader.finish(stop: stop)
            guard let sha256 = stored.sha256 else { throw ArchiveError.damaged("the object was not read to its end") }
            result.sha256 = sha256
            result.compressedBytes = passed.value
            if let size = options.size, size != passed.value {
                throw ArchiveError.damaged("\(passed.value) bytes were delivered, and \(size) were promised")
            }
            if let expected = options.expectedSHA256, expected != sha256 {
                throw ArchiveError.checksumMismatch(expected: expected.hex, actual: sha256.hex)
            }
            result.warnings += reader.warnings
            // zip checks each member's CRC-32.
            let hasChecks = decoder?.hasChecks ?? (options.format == .zip)
            if !hasChecks && options.expectedSHA256 == nil {
                result.warnings.append(
                    "the archive holds no checksum of its contents, and none lies beside it: nothing vouches for them")
            }
        }
    }

    private static func zipReader(
        _ stored: HashingSource, _ options: Options, _ directory: String?, _ open: (Int64) throws -> any ByteSource
    ) throws -> any EntryReader {
        guard let size = options.size else {
            throw ArchiveError.unsupported("the store does not tell the object's size, and a zip is read from its end")
        }
        try check(HeadSource(open(0)), is: .zip)
        let reader = try ZipReader(size: size, limits: options.limits, open: open) {
            try stored.begin(open(0))
            return try ReadAheadSource(stored)
        }
        if let directory {
            try TreeRoot.checkRoom(at: directory, bytes: reader.totalSize, inodes: Int64(reader.totalEntries))
        }
        return reader
    }

    private static func check(_ source: HeadSource, is format: ArchiveFormat, inside outer: ArchiveFormat? = nil) throws
    {
        let found = ArchiveFormat.recognise(try source.head(ArchiveFormat.headLength))
        guard found != .format(format) else { return }
        let expected = outer.map { "\(format.article) inside \($0.article)" } ?? format.article
        throw ArchiveError.wrongFormat(expected: expected, looksLike: found.description)
    }
}
