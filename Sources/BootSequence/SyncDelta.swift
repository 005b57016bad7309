public import HostSystem

/// Brings what has changed since the backup from the orchestrator into a release folder, with rsync.
///
/// Guarantees:
/// - Nothing outside the folder is touched. Nothing in it is, unless the source carries the app's marker, holds files, and a dry
///   run says that no more would be deleted than the settings allow.
/// - `shared` paths are neither brought nor deleted.
/// - A file that is a hard link into another release never changes there: new bytes come by rename, and what gets a new mode or
///   owner alone is given an inode of its own first. (Should the source change a mode between the dry run and the transfer,
///   rsync sets it in place; the next sync sees the difference.)
/// - When `run` returns or throws, no process of it is left; when this process is killed, its rsync is too.
/// - The password is in no argument and no environment: in a 0600 file below the runtime folder, while the run lasts.
///
/// Blocking, on the calling thread. Errors: `RsyncFailure`, `StopReason`, and `HostError` for this machine's own faults.
public struct SyncDelta: Sendable {
    private let settings: DeltaSettings
    private let app: String
    private let layout: HostLayout
    private let log: Log
    /// Where rsync and ssh are looked for.
    var searchPath = ChildProcess.searchPath
    /// Factor of the waits between attempts.
    var pace = 1.0

    public init(_ settings: DeltaSettings, app: String, layout: HostLayout, log: Log) {
        self.settings = settings
        self.app = app
        self.layout = layout
        self.log = log
    }

    /// What would be done to `directory` (a release folder); changes nothing there. Refuses a source without its marker, or
    /// an empty one; whether too much would be deleted is for the caller to see (`exceedsLimit`).
    public func plan(into directory: String, protecting shared: [String], stop: StopFlag) throws -> RsyncPlan {
        let sync = try RsyncRun(
            settings, app: app, layout: layout, log: log, searchPath: searchPath, directory: directory, shared: shared,
            owner: nil, stop: stop)
        var result = RsyncPlan()
        try retrying(stop) {
            try sync.fetchMarker()
            let preview = try sync.preview()
            var tally = RsyncTally()
            tally.add(preview.items)
            result = tally.plan(
                totalFiles: preview.files, existing: preview.existing, deletionsAllowed: preview.deletionsAllowed)
        }
        return result
    }

    /// Plans, checks, transfers, and tries again where that can help. Returns what was done.
    ///
    /// - Parameters:
    ///   - shared: paths relative to `directory`.
    ///   - owner: of everything that is brought; nil, and for an ordinary user always: whoever runs this.
    public func run(
        into directory: String, protecting shared: [String], owner: (owner: UInt32, group: UInt32)?, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> RsyncPlan {
        let sync = try RsyncRun(
            settings, app: app, layout: layout, log: log, searchPath: searchPath, directory: directory, shared: shared,
            owner: owner, stop: stop)
        var tally = RsyncTally()
        var first: RsyncRun.Preview?
        var files = 0
        var isBegun = false
        var attempts = 0
        do {
            try retrying(stop) {
                attempts += 1
                try sync.fetchMarker()
                let preview = try sync.preview()
                files = preview.files
                if first == nil { first = preview }
                guard preview.deletions <= preview.deletionsAllowed else {
                    throw RsyncFailure.deletionLimit(
                        would: preview.deletions, of: preview.existing, allowed: preview.deletionsAllowed)
                }
                if preview.items.isEmpty { return }
                try sync.separateLinks(preview)
                do {
                    defer { tally.add(sync.done) }
                    try sync.transfer(preview, progress)
                } catch let failure as RsyncFailure {
                    // Before a connection stands rsync touches nothing; after that nobody can tell.
                    if !failure.isBeforeTransfer { isBegun = true }
                    throw failure
                }
            }
        } catch let failure as RsyncFailure where isBegun {
            throw RsyncFailure.incomplete(failure)
        }
        // What an attempt left that broke off; the one that succeeded has used up what it found, not what the source lost.
        if attempts > 1 { try sync.removePartialFolders() }
        return tally.plan(
            totalFiles: files, existing: first?.existing ?? 0, deletionsAllowed: first?.deletionsAllowed ?? 0)
    }

    /// Tries again by `RsyncRetry`. Vanished files are accepted at last, with a warning.
    private func retrying(_ stop: StopFlag, _ attempt: () throws -> Void) throws {
        var counts: [RsyncRetry.Class: Int] = [:]
        while true {
            try stop.check()
            do {
                return try attempt()
            } catch let failure as RsyncFailure {
                guard let kind = RsyncRetry.Class(failure) else { throw failure }
                counts[kind, default: 0] += 1
                switch RsyncRetry(kind, times: counts[kind, default: 0]) {
                case .giveUp: throw failure
                case .accept:
                    log.warning("\(failure); accepted: what still exists was brought")
                    return
                case .again(let delay):
                    log.warning("\(failure); trying again")
                    // Fronts that were launched together must not come back together.
                    try stop.sleep(delay * pace * Double.random(in: 0.75...1.25))
                }
            }
        }
    }
}

extension RsyncFailure {
    fileprivate var isBeforeTransfer: Bool {
        switch self {
        case .unreachable, .busy, .wrongServer, .authentication, .hostKey, .accessDenied, .unknownModule, .missingPath,
            .refused, .badPasswordFile:
            true
        default: false
        }
    }
}
