internal import Backups
internal import CloudPlatform
internal import HostSystem

/// Brings the backup that the settings mean into a new release directory.
struct RestoreBackup {
    struct Candidate {
        let object: StoredObject
        /// When it was made, seconds since 1970, as far as anybody knows.
        let time: Int64?
    }

    struct NotThere: Error, CustomStringConvertible {
        let location: String
        var description: String { "there is no \(location)" }
    }

    let settings: BackupSettings
    let location: StoreLocation
    let store: any ObjectStore
    let owner: (owner: UInt32, group: UInt32)?
    let log: Log

    /// What a prefix means now, the one to restore first; a key means itself.
    func candidates(stop: StopFlag) throws -> [Candidate] {
        if !location.isPrefix {
            guard let object = try store.stat(key: location.key, stop: stop) else {
                throw NotThere(location: location.description)
            }
            return [Candidate(object: object, time: object.modified)]
        }
        return try FindBackup(store: store, log: log).candidates(
            prefix: location.key, now: Host.now, newestWithin: settings.newestWithin, stop: stop
        ).map { Candidate(object: $0.object, time: $0.time) }
    }

    /// The object that would be restored now.
    func pinned(stop: StopFlag) throws -> StoredObject {
        guard let candidate = try candidates(stop: stop).first else {
            throw NotThere(location: location.description)
        }
        return try pinned(candidate, stop: stop)
    }

    /// A listing pins nothing: the object is asked for its version and ETag once more, and read as exactly that.
    private func pinned(_ candidate: Candidate, stop: StopFlag) throws -> StoredObject {
        guard let object = try store.stat(key: candidate.object.key, stop: stop) else {
            throw StoreError.removed(object: candidate.object.key)
        }
        return object
    }

    /// Restores into `directory`, which exists and is empty. A backup that vanishes or is replaced while it is read is given
    /// up for what the store has by then, twice at the most.
    func restore(
        into directory: String, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> ReleaseRecord.Backup {
        var attempt = 0
        while true {
            do {
                guard let candidate = try candidates(stop: stop).first else {
                    throw NotThere(location: location.description)
                }
                return try restore(candidate, into: directory, stop: stop, progress: progress)
            } catch let error as StoreError where attempt < 2 {
                switch error {
                case .removed, .replaced: break
                default: throw error
                }
                attempt += 1
                log.warning("\(error); looking again for the newest backup")
                try Files.removeTree(directory)
                try Files.makeNewDirectory(directory, mode: 0o700)
            }
        }
    }

    private func restore(
        _ candidate: Candidate, into directory: String, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> ReleaseRecord.Backup {
        let object = try pinned(candidate, stop: stop)
        let restore = RestoreArchive(store: store, log: log)
        var options = RestoreArchive.Options()
        options.memory = settings.memory
        options.threads = settings.threads
        options.stripComponents = settings.stripComponents
        options.owner = owner
        options.expectedSHA256 = try restore.checksumBeside(object, stop: stop)
        log.detail(
            "restoring \(object.key)"
                + (options.expectedSHA256 == nil ? ", which has no .sha256 beside it" : ", checked against its .sha256")
        )
        let result = try restore.restore(object, into: directory, options: options, stop: stop, progress: progress)
        for warning in result.warnings { log.warning("\(Files.name(of: object.key)): \(warning)") }
        return ReleaseRecord.Backup(
            location: store.location, key: object.key, etag: object.etag, version: object.version,
            sha256: result.sha256,
            time: candidate.time, files: result.files, bytes: result.bytes)
    }
}
