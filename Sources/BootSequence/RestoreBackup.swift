internal import Backups
internal import CloudPlatform
internal import HostSystem

/// The places that the settings name for backups, in their order: the first one that gives a usable backup counts. Another
/// region's or provider's copy serves when the first is away, empty or damaged.
struct BackupPlaces {
    /// Each is opened only when it is its turn.
    let places: [(location: StoreLocation, open: () throws -> RestoreBackup)]
    let log: Log

    var description: String { places.map { "\($0.location)" }.joined(separator: ", else ") }

    /// The backup that a restore would begin with.
    func newest(stop: StopFlag) throws -> RestoreBackup.Candidate { try first { try $0.newest(stop: stop) } }

    /// As `RestoreBackup.restore`; what a place has left in `directory` is removed before the next one is tried.
    func restore(
        into directory: String, journal: String?, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> ReleaseRecord.Backup {
        try first { place in
            do {
                return try place.restore(into: directory, journal: journal, stop: stop, progress: progress)
            } catch let reason as StopReason {
                throw reason
            } catch {
                try RestoreBackup.beginAgain(in: directory, journal: journal)
                throw error
            }
        }
    }

    private func first<Value>(_ body: (RestoreBackup) throws -> Value) throws -> Value {
        var failures: [(location: StoreLocation, error: any Error)] = []
        for (index, place) in places.enumerated() {
            do {
                return try body(place.open())
            } catch let reason as StopReason {
                throw reason
            } catch let error as HostError where !Self.concerns(error, place.location) {
                // This host's own trouble: no other place would mend it.
                throw error
            } catch let error as RestoreError where error.isOutOfRoom {
                throw error
            } catch {
                failures.append((place.location, error))
                if index + 1 < places.count {
                    log.warning("no backup from \(place.location): \(error); trying \(places[index + 1].location)")
                }
            }
        }
        if failures.count == 1 { throw failures[0].error }
        throw NoPlace(
            failures: failures.map { failure in
                (failure.location, BootFailure(.restore, "", failure.error))
            })
    }

    /// Whether it is the disk of the backups themselves that fails.
    private static func concerns(_ error: HostError, _ place: StoreLocation) -> Bool {
        let folder = place.root.hasSuffix("/") ? place.root : place.root + "/"
        return place.scheme == .file && (error.path + "/").hasPrefix(folder)
    }

    /// None of them has a usable backup.
    struct NoPlace: Error, CustomStringConvertible {
        let failures: [(location: StoreLocation, failure: BootFailure)]

        var description: String {
            "no place has a usable backup:"
                + failures.map { "\n  \($0.location): \($0.failure.cause)" }.joined()
        }
    }
}

/// Brings the backup that one place has into a new directory.
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
    /// Whose backup it must be, of those that say so; nil: anybody's.
    var app: String?
    /// Permission bits as they were, of a backup that amorce made. A release's are open to their owner, as the delta's are.
    var keepsModes = false
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
    func pinned(stop: StopFlag) throws -> StoredObject { try pinned(newest(stop: stop), stop: stop) }

    /// The first one that is a backup of the right application and environment. Others have their backups below the same prefix;
    /// the newest of all would be one environment's data in another.
    func newest(stop: StopFlag) throws -> Candidate {
        let archive = RestoreArchive(store: store, log: log)
        var others: [String] = []
        for candidate in try candidates(stop: stop) {
            guard app != nil || settings.environment != nil,
                let header = try archive.header(of: candidate.object, stop: stop)
            else { return candidate }
            if app.map({ $0 == header.app }) ?? true,
                settings.environment.map({ $0 == header.environment }) ?? true
            {
                if !others.isEmpty { log.detail("passed over: \(others.joined(separator: ", "))") }
                return candidate
            }
            others.append("\(Files.name(of: candidate.object.key)), of \(header.app) in \(header.environment)")
        }
        if others.isEmpty { throw NotThere(location: location.description) }
        throw OthersOnly(location: location.description, app: app, environment: settings.environment, others: others)
    }

    /// What is there are backups of something else.
    struct OthersOnly: Error, CustomStringConvertible {
        let location: String
        let app: String?
        let environment: String?
        let others: [String]

        var description: String {
            let wanted = [app, environment.map { "in \($0)" }].compactMap { $0 }.joined(separator: " ")
            return "\(location) has no backup of \(wanted); there is:"
                + others.prefix(10).map { "\n  \($0)" }.joined()
        }
    }

    /// A listing pins nothing: the object is asked for its version and ETag once more, and read as exactly that.
    private func pinned(_ candidate: Candidate, stop: StopFlag) throws -> StoredObject {
        guard let object = try store.stat(key: candidate.object.key, stop: stop) else {
            throw StoreError.removed(object: candidate.object.key)
        }
        return object
    }

    /// Restores into `directory`, which exists and is empty. A backup that vanishes or is replaced while it is read, or whose
    /// manifest does, is given up for what the store has by then, twice at the most.
    ///
    /// - Parameter journal: where it is kept how far a framed backup has come, so that an interrupted restore goes on; whatever else
    ///   is in the directory is removed. Nil: the directory is empty.
    func restore(
        into directory: String, journal: String?, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> ReleaseRecord.Backup {
        var attempt = 0
        while true {
            let candidate = try newest(stop: stop)
            do {
                return try restore(candidate, into: directory, journal: journal, stop: stop, progress: progress)
            } catch {
                guard attempt < 2, isGone(candidate, after: error, stop: stop) else { throw error }
                attempt += 1
                log.warning("\(error); looking again for the newest backup")
                try Self.beginAgain(in: directory, journal: journal)
            }
        }
    }

    /// Whether an error came because the backup is not there any more as it was chosen.
    private func isGone(_ candidate: Candidate, after error: any Error, stop: StopFlag) -> Bool {
        switch error {
        case StoreError.removed, StoreError.replaced, FolderStore.Refusal.absent, FolderStore.Refusal.replaced:
            return true
        // Pruning takes the manifest first: what was a backup a moment ago then looks as if it had never been finished.
        case RestoreError.badArchive:
            guard location.isPrefix, let now = try? candidates(stop: stop) else { return false }
            return !now.contains { $0.object.key == candidate.object.key }
        default: return false
        }
    }

    /// What is written is no part of what comes next.
    static func beginAgain(in directory: String, journal: String?) throws {
        if let journal { try Files.remove(journal) }
        try Files.removeTree(directory)
        try Files.makeNewDirectory(directory, mode: 0o700)
    }

    private func restore(
        _ candidate: Candidate, into directory: String, journal: String?, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> ReleaseRecord.Backup {
        let object = try pinned(candidate, stop: stop)
        let restore = RestoreArchive(store: store, log: log)
        var options = RestoreArchive.Options()
        options.memory = settings.memory
        options.threads = settings.threads
        options.journal = journal
        options.keepsModes = keepsModes
        options.stripComponents = settings.stripComponents
        options.owner = owner
        options.expectedSHA256 = try restore.checksumBeside(object, stop: stop)
        log.detail(
            "restoring \(object.key)"
                + (BackupKey.isFramed(object.key)
                    ? ", checked against its manifest"
                    : options.expectedSHA256 == nil
                        ? ", which has no .sha256 beside it" : ", checked against its .sha256"))
        let result = try restore.restore(object, into: directory, options: options, stop: stop, progress: progress)
        for warning in result.warnings { log.warning("\(Files.name(of: object.key)): \(warning)") }
        return ReleaseRecord.Backup(
            location: store.location, key: object.key, etag: object.etag, version: object.version,
            sha256: result.sha256,
            time: candidate.time, files: result.files, bytes: result.bytes)
    }
}
