public import HostSystem

/// Why an archive was not restored. What the store or the file system threw passes through as it is, as does `StopReason`.
public enum RestoreError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Truncated, damaged, not the format its name promises, or without a single file.
    case badArchive(key: String, reason: String, entry: String?)
    /// It holds something that has no place in a release, or would leave its directory.
    case refusedEntry(key: String, reason: RefusedEntry, entry: String)
    case checksumMismatch(key: String, expected: String, actual: String)
    /// The `.sha256` beside it is no checksum of it.
    case badChecksumFile(key: String, reason: String)
    case unsupported(key: String, reason: String, entry: String?)
    case limit(key: String, limit: ExtractionLimit, entry: String?)
    /// What is missing is bytes or inodes.
    case noRoom(key: String, reason: String)

    public var isOutOfRoom: Bool {
        if case .noRoom = self { return true }
        return false
    }

    public var description: String {
        func at(_ entry: String?) -> String { entry.map { ", at entry \($0)" } ?? "" }
        switch self {
        case .badArchive(let key, let reason, let entry):
            return "the archive \(Printable.text(key)) is bad: \(reason)\(at(entry))"
        case .refusedEntry(let key, let reason, let entry):
            return "the archive \(Printable.text(key)) is refused: \(reason)\(at(entry))"
        case .checksumMismatch(let key, let expected, let actual):
            return
                "the archive \(Printable.text(key)) is not what was stored: its SHA-256 is \(actual), "
                + "and should be \(expected)"
        case .badChecksumFile(let key, let reason): return "\(Printable.text(key)) \(reason)"
        case .unsupported(let key, let reason, let entry):
            return "the archive \(Printable.text(key)) cannot be read: \(reason)\(at(entry))"
        case .limit(let key, let limit, let entry):
            return "the archive \(Printable.text(key)) is refused: \(limit)\(at(entry))"
        case .noRoom(let key, let reason):
            return "there is no room for the archive \(Printable.text(key)): it \(reason)"
        }
    }
}

/// Restores one archive from a store into an empty directory: download, hash, decompress, check and write at once, with no
/// archive on disk. One restore at a time per value is not required; it holds no state.
public struct RestoreArchive: Sendable {
    public struct Options: Sendable {
        /// All download buffers together.
        public var memory: ByteCount
        public var stripComponents: Int
        /// Of everything that is restored, where this process may give files away.
        public var owner: (UInt32, UInt32)?
        public var limits: ExtractionLimits
        public var expectedSHA256: [UInt8]?
        /// That unpack and write.
        public var threads = 2
        /// Of a framed backup: which frames are written is kept there, and an interrupted restore goes on. With it the directory need
        /// not be empty: what is no part of that restore is removed.
        public var journal: String?
        /// Of a framed backup: permission bits as they were; else everything is open to its owner.
        public var keepsModes = false

        public init(
            memory: ByteCount = ByteCount(32 << 20), stripComponents: Int = 0, owner: (UInt32, UInt32)? = nil,
            limits: ExtractionLimits = ExtractionLimits(), expectedSHA256: [UInt8]? = nil
        ) {
            self.memory = memory
            self.stripComponents = stripComponents
            self.owner = owner
            self.limits = limits
            self.expectedSHA256 = expectedSHA256
        }
    }

    public struct Result: Sendable, Equatable {
        /// Of the object as stored, in hexadecimal; of a framed backup, of its manifest, which has a hash of every frame.
        public var sha256: String
        public var files: Int
        public var directories: Int
        /// Symlinks and hard links.
        public var links: Int
        /// Unpacked.
        public var bytes: Int64
        public var compressedBytes: Int64
        public var skipped: [String]
        public var warnings: [String]
    }

    private let store: any ObjectStore
    private let log: Log

    public init(store: any ObjectStore, log: Log) {
        self.store = store
        self.log = log
    }

    /// `directory` exists, is empty and out of others' reach; on an error it holds a part of the archive, and the caller removes
    /// it. When this returns, every byte of the object was read and checked, and everything is on disk.
    ///
    /// Throws `RestoreError`, `HostError` of the file system, `StopReason`, and what the store throws, also when the object was
    /// replaced meanwhile. Blocking; `progress` is called on the calling thread, with compressed bytes and files.
    public func restore(
        _ object: StoredObject, into directory: String, options: Options, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> Result {
        if BackupKey.isFramed(object.key) {
            // What it holds lies where it lay; nothing stands before it.
            if options.stripComponents != 0 {
                throw RestoreError.unsupported(
                    key: object.key,
                    reason: "of a backup that amorce made, strip-components drops nothing: leave it out",
                    entry: nil)
            }
            return try BackupReader(store: store).restore(
                object, into: directory, options: options, stop: stop, progress: progress)
        }
        let extraction = try extraction(object, options)
        let journal = try options.journal.map { try FrameJournal($0, identity: "of no frames", directory: directory) }
        defer { try? journal?.remove() }
        return try extract(object, options, stop) { open in
            try ArchiveExtraction.run(into: directory, options: extraction, stop: stop, progress: progress, open: open)
        }
    }

    /// What a backup that amorce made says of itself; nil of any other archive, and where the manifest is gone.
    public func header(of object: StoredObject, stop: StopFlag) throws -> BackupHeader? {
        guard BackupKey.isFramed(object.key),
            let manifest = try store.stat(key: BackupKey.manifest(of: object.key), stop: stop)
        else { return nil }
        return try BackupReader(store: store).header(manifest, stop: stop)
    }

    /// Reads the whole object with every check that a restore has, and writes nothing. Throws as `restore`.
    public func verify(
        _ object: StoredObject, options: Options, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> Result {
        if BackupKey.isFramed(object.key) {
            return try BackupReader(store: store).verify(
                object, threads: options.threads, memory: options.memory, stop: stop, progress: progress)
        }
        let extraction = try extraction(object, options)
        return try extract(object, options, stop) { open in
            try ArchiveExtraction.verify(options: extraction, stop: stop, progress: progress, open: open)
        }
    }

    private func extraction(_ object: StoredObject, _ options: Options) throws -> ArchiveExtraction.Options {
        guard let format = ArchiveFormat(name: object.key) else {
            throw RestoreError.unsupported(
                key: object.key, reason: "its name ends in none of \(ArchiveFormat.allSuffixes.joined(separator: " "))",
                entry: nil)
        }
        if object.size == 0 { throw RestoreError.badArchive(key: object.key, reason: "it is empty", entry: nil) }
        var extraction = ArchiveExtraction.Options(format: format, size: object.size)
        extraction.stripComponents = options.stripComponents
        extraction.owner = options.owner.map { (owner: $0.0, group: $0.1) }
        extraction.limits = options.limits
        extraction.expectedSHA256 = options.expectedSHA256
        extraction.threads = options.threads
        log.detail("reading \(Printable.text(object.key)), \(format.rawValue)")
        return extraction
    }

    private func extract(
        _ object: StoredObject, _ options: Options, _ stop: StopFlag,
        _ body: ((Int64) throws -> any ByteSource) throws -> ArchiveExtraction.Result
    ) throws -> Result {
        let done: ArchiveExtraction.Result
        do {
            done = try body { try store.open(object, from: $0, memory: options.memory, stop: stop) { _ in } }
        } catch let error as ArchiveError {
            throw Self.restoreError(error, key: object.key)
        }
        // An archive of nothing would empty the site.
        if done.files == 0 { throw RestoreError.badArchive(key: object.key, reason: "it holds no file", entry: nil) }
        return Result(
            sha256: done.sha256.hex, files: done.files, directories: done.directories, links: done.links,
            bytes: done.bytes,
            compressedBytes: done.compressedBytes, skipped: done.skipped, warnings: done.warnings)
    }

    /// The checksum that `KEY.sha256` gives for the object, or nil where there is none. The file is sha256sum's, or bare digits;
    /// of several lines the one with the object's name counts. Anything else is an error: a checksum that cannot be read must
    /// not pass for one that is not there. A framed backup's manifest has the hashes of all that it holds, and a file beside it is
    /// not looked at.
    public func checksumBeside(_ object: StoredObject, stop: StopFlag) throws -> [UInt8]? {
        if BackupKey.isFramed(object.key) { return nil }
        let key = object.key + ".sha256"
        guard let bytes = try store.read(key: key, limit: 64 << 10, stop: stop) else { return nil }
        return try Self.checksum(in: bytes, for: object.key, file: key)
    }

    static func checksum(in bytes: [UInt8], for archive: String, file key: String) throws(RestoreError) -> [UInt8] {
        let name = archive.split(separator: "/").last.map(String.init) ?? archive
        let lines = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
            .map { $0.drop { $0 == " " || $0 == "\t" } }.filter { !$0.isEmpty }
        if lines.isEmpty { throw .badChecksumFile(key: key, reason: "is empty") }
        var bare: [UInt8]?
        for line in lines {
            let digits = line.prefix { $0.isHexDigit }
            guard digits.count == 64, let sum = [UInt8](hex: digits) else {
                throw .badChecksumFile(key: key, reason: "is no SHA-256 checksum file")
            }
            let rest = line.dropFirst(digits.count)
            // Two spaces, or a space and a star for binary mode, stand before the name.
            let stated = rest.drop { $0 == " " || $0 == "\t" || $0 == "*" }
            if stated.isEmpty {
                if lines.count > 1 {
                    throw .badChecksumFile(key: key, reason: "has several lines, and one without a name")
                }
                bare = sum
            } else if rest.first != " " && rest.first != "\t" {
                throw .badChecksumFile(key: key, reason: "is no SHA-256 checksum file")
            } else if stated.split(separator: "/").last.map(String.init)?.trimmingTrailingSpaces == name {
                return sum
            }
        }
        if let bare { return bare }
        throw .badChecksumFile(key: key, reason: "is a checksum of another file")
    }

    static func restoreError(_ error: ArchiveError, key: String) -> RestoreError {
        switch error {
        case .wrongFormat, .damaged: .badArchive(key: key, reason: error.reason, entry: error.entry)
        case .refused(let reason, let entry): .refusedEntry(key: key, reason: reason, entry: entry)
        case .limit(let limit, let entry): .limit(key: key, limit: limit, entry: entry)
        case .unsupported(let reason, let entry): .unsupported(key: key, reason: reason, entry: entry)
        case .noRoom, .noInodes: .noRoom(key: key, reason: error.reason)
        case .checksumMismatch(let expected, let actual):
            .checksumMismatch(key: key, expected: expected, actual: actual)
        }
    }
}

extension String {
    fileprivate var trimmingTrailingSpaces: String {
        var text = self
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text
    }
}
