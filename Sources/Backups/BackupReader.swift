internal import HostSystem

/// Restores and verifies a framed backup by its manifest.
struct BackupReader {
    /// Far more than a site of ten million files needs.
    static let largestManifest = 1 << 30

    let store: any ObjectStore

    /// As `RestoreArchive.restore`.
    func restore(
        _ object: StoredObject, into directory: String, options: RestoreArchive.Options, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> RestoreArchive.Result {
        let manifest = try manifest(of: object, stop: stop)
        let sha256 = Digest.sha256(manifest)
        return try translated(object.key) {
            let reader = try ManifestReader(manifest)
            var extraction = try Self.options(reader.header, object, threads: options.threads, limits: options.limits)
            extraction.owner = options.owner.map { (owner: $0.0, group: $0.1) }
            extraction.keepsModes = options.keepsModes
            if let path = options.journal {
                let owner = options.owner.map { "\($0.0):\($0.1)" } ?? "-"
                extraction.journal = try FrameJournal(
                    path,
                    identity: "\(sha256.hex) \(Host.bootIdentifier(HostLayout())) \(owner) \(options.keepsModes)",
                    directory: directory)
            }
            let store = store
            let done = try FrameExtraction.run(
                into: directory, options: extraction, stop: stop, progress: progress,
                frames: {
                    while let next = try reader.nextFrame() { if next.holdsFiles { return next.frame } }
                    return nil
                },
                members: { try ManifestMember.all(in: $0.contents).filter { !$0.isDead }.map(\.member) },
                last: { try reader.nextLast() },
                open: { try store.open(object, from: $0, memory: options.memory, stop: stop) { _ in } })
            // What an earlier run wrote is not counted in bytes.
            if done.files != reader.header.files || done.framesKept == 0 && done.bytes != reader.header.bytes {
                throw ArchiveError.damaged("not all of its files were restored")
            }
            if done.files == 0 { throw ArchiveError.damaged("it holds no file") }
            try extraction.journal?.remove()
            return RestoreArchive.Result(
                sha256: sha256.hex, files: done.files, directories: done.directories, links: done.links,
                bytes: reader.header.bytes, compressedBytes: done.compressedBytes, skipped: [], warnings: [])
        }
    }

    /// Reads every byte of the backup and compares it with the manifest.
    func verify(
        _ object: StoredObject, threads: Int, memory: ByteCount, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> RestoreArchive.Result {
        let manifest = try manifest(of: object, stop: stop)
        return try translated(object.key) {
            let reader = try ManifestReader(manifest)
            let extraction = try Self.options(reader.header, object, threads: threads, limits: ExtractionLimits())
            let store = store
            var (links, directories) = (0, 0)
            let done = try FrameExtraction.verify(
                options: extraction, stop: stop, progress: progress, frames: { try reader.nextFrame()?.frame },
                members: { frame in
                    if frame.contents.isEmpty { return nil }
                    let members = try ManifestMember.all(in: frame.contents)
                    let live = members.filter { !$0.isDead }.map(\.member)
                    guard live.count(where: { $0.fileOffset == 0 }) == frame.files else {
                        throw ArchiveError.damaged("a frame has not as many files as the manifest says")
                    }
                    return (members.map(\.member), live.reduce(0) { $0 + Int64($1.count) })
                },
                last: {
                    let last = try reader.nextLast()
                    switch last {
                    case .symlink, .hardLink: links += 1
                    case .directory: directories += 1
                    case .root, nil: break
                    }
                    return last
                },
                open: { try store.open(object, from: $0, memory: memory, stop: stop) { _ in } })
            guard done.bytes == reader.header.bytes else {
                throw ArchiveError.damaged("its files have not as many bytes as the manifest says")
            }
            return RestoreArchive.Result(
                sha256: Digest.sha256(manifest).hex, files: done.files, directories: directories, links: links,
                bytes: reader.header.bytes, compressedBytes: done.compressedBytes, skipped: [], warnings: [])
        }
    }

    /// What the first lines of a manifest say. They are a frame of their own, so that only the first bytes are read.
    func header(_ manifest: StoredObject, stop: StopFlag) throws -> BackupHeader {
        do {
            let source = try store.open(manifest, memory: ByteCount(256 << 10), stop: stop) { _ in }
            return try ManifestReader(ZstdLines(source)).header
        } catch let error as ArchiveError {
            throw RestoreArchive.restoreError(error, key: manifest.key)
        }
    }

    func manifest(of object: StoredObject, stop: StopFlag) throws -> [UInt8] {
        let key = BackupKey.manifest(of: object.key)
        guard let manifest = try store.read(key: key, limit: Self.largestManifest, stop: stop) else {
            throw RestoreError.badArchive(
                key: object.key, reason: "it has no manifest beside it, so it was never finished", entry: nil)
        }
        return manifest
    }

    private static func options(
        _ header: BackupHeader, _ object: StoredObject, threads: Int, limits: ExtractionLimits
    ) throws -> FrameExtraction.Options {
        if let size = object.size, size != header.size {
            throw ArchiveError.damaged("it has \(size) bytes, and its manifest says \(header.size)")
        }
        var options = FrameExtraction.Options(
            threads: threads, size: header.size, files: header.files, bytes: header.bytes)
        options.limits = limits
        return options
    }

    private func translated<Value>(_ key: String, _ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let error as ArchiveError {
            throw RestoreArchive.restoreError(error, key: key)
        }
    }
}
