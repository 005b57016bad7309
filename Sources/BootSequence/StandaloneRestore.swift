internal import Backups
internal import CloudPlatform
public import HostSystem

/// One backup into one folder, outside of any front.
public struct StandaloneRestore {
    public struct Result: Sendable, Encodable {
        public let key: String
        public let sha256: String
        public let files: Int
        public let bytes: Int64
        public let time: Int64?
    }

    /// A restore goes on with what its own account has left, and no other's.
    struct NotOurs: Error, CustomStringConvertible {
        let path: String
        var description: String { "\(Printable.text(path)) is there, and is no folder of this user" }
    }

    struct NotEmpty: Error, CustomStringConvertible {
        let path: String
        var description: String { "\(Printable.text(path)) is not empty" }
    }

    private let options: RunOptions
    private let transport: any HTTPTransport
    private let stop: StopFlag
    private let recorder: RunRecorder

    public init(
        options: RunOptions, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) {
        self.options = options
        self.transport = transport
        self.stop = stop
        let report = RunReport(
            version: options.version, command: "restore", run: "", process: Host.processIdentifier, bootIdentifier: "",
            started: Host.now)
        recorder = RunRecorder(report: report, layout: options.layout, keepsStatus: false, observer: observer)
    }

    /// Fills `directory`, which is new or empty; on failure it is left empty, or absent where it was.
    public func restore(
        _ backup: BackupSettings, into directory: String, owner: String?
    ) throws(BootFailure) -> Result {
        let restored = try recorder.step(
            .restore, "restoring \(HTTPRequest.withoutQuery(backup.from)) to \(directory)",
            summary: { (restored: ReleaseRecord.Backup) in
                "\(Files.name(of: restored.key)): \(restored.files) files, \(ByteCount(restored.bytes)) in \(directory)"
            }
        ) {
            try perform(backup, into: directory, owner: owner)
        }
        return Result(
            key: restored.key, sha256: restored.sha256, files: restored.files, bytes: restored.bytes,
            time: restored.time)
    }

    private func perform(
        _ backup: BackupSettings, into directory: String, owner: String?
    ) throws -> ReleaseRecord.Backup {
        let location = try StoreLocation(parsing: backup.from)
        var account: (owner: UInt32, group: UInt32)?
        if let owner {
            guard let found = Accounts.resolve(owner, layout: options.layout) else {
                throw BootFailure(
                    .restore, "finding the owner", cause: "there is no user or group \(Printable.text(owner))",
                    status: .usage)
            }
            account = found
        }
        // Held to the end, so that no other restore takes what is under way here for what was interrupted.
        let lockFile = directory + ".amorce-lock"
        let lock = try FileLock.temporary(lockFile, holder: "a restore into \(Printable.text(directory))")
        defer { lock.remove(lockFile) }
        if try !Files.names(in: directory).isEmpty { throw NotEmpty(path: directory) }
        // Built aside and renamed: a killed restore leaves no folder that looks whole, and the next one goes on with it.
        let staging = directory + ".amorce-new"
        let journal = staging + ".frames"
        if let left = try Files.status(staging), left.kind != .directory || left.owner != Host.userIdentifier {
            throw NotOurs(path: staging)
        }
        if !Files.exists(staging) { try Files.makeNewDirectory(staging, mode: 0o700) }
        var isInPlace = false
        do {
            let store = try StoreAccess.standalone(
                location, backup, options: options, transport: transport, log: recorder.log, stop: stop
            ).store(location, backup)
            let step = RestoreBackup(
                settings: backup, location: location, store: store, owner: account, keepsModes: true, log: recorder.log)
            let restored = try step.restore(
                into: staging, journal: journal, stop: stop, progress: recorder.progress(of: .restore))
            // A backup of amorce's own tells the folder's mode.
            if !BackupKey.isFramed(restored.key) { try Files.changeMode(staging, 0o755) }
            // Over an empty directory rename(2) works; an absent one it creates.
            try Files.rename(staging, to: directory)
            isInPlace = true
            if let parent = Files.parent(of: directory) { try Files.synchronizeDirectory(parent) }
            return restored
        } catch let busy as FileLock.Busy {
            throw busy
        } catch let reason as StopReason where Files.exists(journal) {
            // The next run goes on from here.
            throw reason
        } catch {
            // The journal first: what is half removed must not be gone on with. The disk that does not keep the folder's name may not
            // keep it either.
            try? Files.remove(journal)
            try? Files.removeTree(isInPlace ? directory : staging)
            throw error
        }
    }
}
