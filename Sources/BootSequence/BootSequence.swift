internal import CloudPlatform
internal import ConfigTemplates
public import HostSystem

/// What a run is asked to do.
public enum RunCommand: Sendable, Equatable {
    case boot
    case sync
    /// To the named release, or to the one before the live one.
    case rollback(String?)

    public var name: String {
        switch self {
        case .boot: "boot"
        case .sync: "sync"
        case .rollback: "rollback"
        }
    }
}

/// What a run is given from outside.
public struct RunOptions: Sendable {
    public var layout = HostLayout()
    public var version = ""
    public var sources = SettleSettings.Sources()
    /// A recorded instance (`--metadata FILE`).
    public var metadataFile: String?
    /// Wins over the settings' own.
    public var deadline: Duration?

    public init() {}
}

/// A boot, a sync or a rollback: the steps in their order, each one's result the next one's input. One run at a time on a host
/// (the lock says so); everything is called on the run's own thread.
public struct BootSequence {
    private let options: RunOptions
    private let transport: any HTTPTransport
    private let stop: StopFlag
    private let recorder: RunRecorder
    private var layout: HostLayout { options.layout }
    private var log: Log { recorder.log }

    /// Runs `command` under the host's lock, tells the result to whoever waits for it, and says how it ended. Every error of
    /// every step ends here, once.
    public static func perform(
        _ command: RunCommand, _ options: RunOptions, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) -> ExitStatus {
        let layout = options.layout
        let report = RunReport(
            version: options.version, command: command.name, run: Host.randomHex(bytes: 8),
            process: Host.processIdentifier,
            bootIdentifier: Host.bootIdentifier(layout), started: Host.now)
        let lock: FileLock
        do {
            try Files.makeDirectories(layout.runtime)
            lock = try FileLock(
                path: layout.lockFile,
                holder:
                    "amorce \(command.name), pid \(report.process), since \(UTCStamp(secondsSince1970: report.started).text)"
            )
        } catch {
            // The status is the other run's; it is left alone.
            let failure = BootFailure(.recover, "taking the lock \(layout.lockFile)", error)
            RunRecorder(report: report, layout: layout, keepsStatus: false, observer: observer).end(
                .failed, failure: failure)
            return failure.status
        }
        let recorder = RunRecorder(report: report, layout: layout, keepsStatus: true, observer: observer)
        let sequence = BootSequence(options: options, transport: transport, stop: stop, recorder: recorder)
        return withExtendedLifetime(lock) { sequence.run(command) }
    }

    private func run(_ command: RunCommand) -> ExitStatus {
        let health = HealthFile(layout: layout)
        let before = health.read()
        let app = (try? ReleaseStore.liveApp(layout: layout)) ?? nil
        let live = app.flatMap { try? ReleaseStore(layout: layout, app: $0).live() }
        recorder.update { $0.previousRelease = live }
        // A health file of another boot, or of a release that is not live, vouches for nothing.
        if before == nil || before?.release != live { try? health.withdraw() }
        do {
            let degraded: String?
            switch command {
            case .boot: degraded = try boot()
            case .sync: degraded = try sync()
            case .rollback(let release): degraded = try rollback(to: release)
            }
            recorder.end(degraded == nil ? .ready : .degraded)
            return .done
        } catch {
            fail(error, before: before)
            return error.status
        }
    }

    /// Says what is served now, tells whoever waits, and closes the report.
    private func fail(_ failure: BootFailure, before: HealthFile.Contents?) {
        let live = recorder.report.previousRelease
        let isUncertain = failure.aftermath != nil
        recorder.update { report in
            report.aftermath =
                failure.aftermath
                ?? live.map {
                    failure.step == .announce
                        ? "release \($0) serves, and is not announced as ready" : "release \($0) serves as before"
                } ?? "nothing is served"
            report.release = isUncertain ? nil : live
        }
        // Ready before, and what was proved then is live again: a failed attempt takes no front out of service.
        let serving = isUncertain || before?.release != live ? nil : before
        // A release that never was live is of no use to anybody, and takes room.
        if let app = recorder.report.app {
            let store = ReleaseStore(layout: layout, app: app)
            do {
                // A switch that could not be taken back may be served by now; the next run takes it back, and needs its record.
                if try store.journal() == nil {
                    _ = try store.removeUnfinished()
                    for record in try store.records() where record.state == .complete {
                        try store.remove(record.identifier)
                    }
                }
            } catch {
                log.warning("the unfinished release cannot be removed: \(error)")
            }
        }
        do {
            try HealthFileAnnouncer(layout: layout).announce(
                .failed(recorder.report, serving: serving), stop: StopFlag())
        } catch {
            log.error("the health file cannot be changed: \(error)")
        }
        recorder.end(.failed, failure: failure)
    }

    // MARK: the three orders

    private func boot() throws(BootFailure) -> String? {
        try recover()
        let instance = try identify()
        let front = try settle(instance)
        var draft: Draft
        if let live = try liveRelease(front) {
            draft = try refresh(live, front, isBoot: true)
        } else {
            draft = try restore(front)
        }
        try goLive(&draft, front)
        return draft.record.degraded
    }

    private func sync() throws(BootFailure) -> String? {
        try recover()
        let front = try settle(try identify())
        guard let live = try liveRelease(front) else {
            throw BootFailure(
                .sync, "bringing the delta to the live release", cause: "this front has no live release yet",
                advice: "run amorce boot")
        }
        guard front.settings.delta != nil else {
            throw BootFailure(
                .sync, "bringing the delta to the live release", cause: "the settings name no `delta.from`",
                advice: "name the orchestrator's rsync module in `delta.from`", status: .settings)
        }
        var draft = try refresh(live, front, isBoot: false)
        try goLive(&draft, front)
        return draft.record.degraded
    }

    private func rollback(to name: String?) throws(BootFailure) -> String? {
        try recover()
        let front = try settle(try identify())
        let target: ReleaseRecord = try BootFailure.inStep(.switchRelease, "finding the release to go back to") {
            try Rollback(
                store: front.store, environment: front.settings.environment, instance: front.identity.id,
                neverMention: front.settings.neverMention
            ).target(named: name)
        }
        let proved = try switchTo(target, front)
        try announce(proved, front)
        return proved.degraded
    }

    // MARK: recover, identify, settle

    private func recover() throws(BootFailure) {
        let undone: String?
        do {
            undone = try Self.recoverSwitch(layout: layout, filesOnly: false, log: log, stop: stop)
        } catch {
            throw BootFailure(.recover, "taking back a switch that was cut off", error)
        }
        if let undone {
            log.warning(undone)
            let app = (try? ReleaseStore.liveApp(layout: layout)) ?? nil
            recorder.update { $0.previousRelease = app.flatMap { try? ReleaseStore(layout: layout, app: $0).live() } }
        }
    }

    /// Takes back a switch that a killed run left half done. `filesOnly` is for the unit that runs before the services start:
    /// then they load the old configuration, whole, and nothing needs a reload.
    public static func recoverSwitch(
        layout: HostLayout, filesOnly: Bool, log: Log, stop: StopFlag
    ) throws -> String? {
        guard let app = try ReleaseStore.liveApp(layout: layout) else { return nil }
        return try SwitchRelease.recover(
            store: ReleaseStore(layout: layout, app: app), health: HealthFile(layout: layout), filesOnly: filesOnly,
            log: log,
            stop: stop)
    }

    private func identify() throws(BootFailure) -> (data: InstanceData, access: StoreAccess) {
        let found = try recorder.step(
            .identify, "asking who this instance is",
            summary: { (found: (data: InstanceData, access: StoreAccess)) in Self.describe(found.data) }
        ) {
            try Front.identify(options, transport: transport, log: log, stop: stop)
        }
        recorder.update { $0.instance = found.data.identity.id.isEmpty ? nil : found.data.identity.id }
        return found
    }

    private static func describe(_ data: InstanceData) -> String {
        let identity = data.identity
        if identity.platform == .none { return "no metadata: the settings alone say what this front is" }
        return [identity.id, identity.zone ?? identity.region, "from \(data.source)"].compactMap { $0 }.joined(
            separator: ", ")
    }

    private func settle(_ instance: (data: InstanceData, access: StoreAccess)) throws(BootFailure) -> Front {
        let front = try recorder.step(
            .settle, "merging the settings",
            summary: { (front: Front) in
                // That a shipped set has defaults is no news.
                let layers = front.layers.filter { !$0.hasPrefix(front.layout.shippedTemplates + "/") }
                return "\(front.settings.app) in \(front.settings.environment), from "
                    + (layers.isEmpty ? "flags" : layers.joined(separator: ", "))
            }
        ) {
            try Front.settle(
                instance.data, options: options, access: instance.access, transport: transport, log: log, stop: stop)
        }
        recorder.hide(front.settings.secrets)
        recorder.update { report in
            report.app = front.settings.app
            report.environment = front.settings.environment
        }
        if options.deadline == nil { stop.limit(to: front.settings.deadline) }
        try BootFailure.inStep(.recover, "loading again what a switch was taken back to") {
            // Files were put back, and their services would not load them: with the settings of now they may.
            guard try front.store.journal() != nil else { return }
            try front.services.reload(stop: stop)
            try front.store.closeJournal()
        }
        return front
    }

    // MARK: data

    /// A release under way: its record and directory, and whether it is the one that is live already.
    private struct Draft {
        var record: ReleaseRecord
        var isLive: Bool
        var files: [RenderedFile] = []
    }

    /// The release that this front serves, where it is this environment's and this instance's own.
    private func liveRelease(_ front: Front) throws(BootFailure) -> ReleaseRecord? {
        try BootFailure.inStep(.recover, "reading the records of releases") {
            try front.store.prepareFolders()
            for identifier in try front.store.removeUnfinished() {
                log.detail("removed the unfinished release \(identifier)")
            }
            // The last one that was taken back may still be what a service has in memory, where a kill kept it from loading
            // anything else; it goes with the next release that is proved.
            let unproved = try front.store.records().filter { $0.state != .proved }
            for record in unproved where record.state == .complete || record != unproved.last {
                try front.store.remove(record.identifier)
            }
            guard let identifier = try front.store.live(), let record = try front.store.record(identifier),
                Files.exists(layout.release(front.settings.app, identifier))
            else { return nil }
            if record.environment != front.settings.environment {
                log.notice(
                    "release \(identifier) is of environment \(record.environment); a new one is made from the backup")
                return nil
            }
            if let owner = record.instance, owner != front.identity.id {
                log.notice(
                    "release \(identifier) came with the image, from instance \(owner); a new one is made from the backup"
                )
                return nil
            }
            return record
        }
    }

    private func newRecord(_ front: Front, base: String?) throws -> ReleaseRecord {
        var record = ReleaseRecord(
            identifier: try front.store.newIdentifier(now: Host.now), app: front.settings.app,
            environment: front.settings.environment, created: Host.now, token: Host.randomHex(bytes: 16), base: base)
        record.instance = front.identity.id.isEmpty ? nil : front.identity.id
        return record
    }

    /// A new release from the backup, and the delta on top.
    private func restore(_ front: Front) throws(BootFailure) -> Draft {
        guard front.settings.backup != nil else {
            throw BootFailure(
                .restore, "making the first release", cause: "the settings name no `backup.from`",
                advice: "name the bucket of backups in `backup.from`", status: .settings)
        }
        var record: ReleaseRecord = try BootFailure.inStep(.restore, "naming the release") {
            try newRecord(front, base: nil)
        }
        let directory = layout.release(front.settings.app, record.identifier)
        var restored = try recorder.step(
            .restore, "restoring \(front.backupLocation)",
            summary: { (restored: ReleaseRecord.Backup) in
                "\(Files.name(of: restored.key)): \(restored.files) files, \(ByteCount(restored.bytes))"
                    + (front.settings.backup?.others.isEmpty == false ? " from \(restored.location)" : "")
                    + (restored.time.map { ", \(Self.age($0)) old" } ?? "")
            }
        ) {
            let places = try front.backupPlaces(log: log)
            let unfinished = try front.store.beginRestore()
            let restored = try front.store.keepingUnfinished {
                try places.restore(
                    into: unfinished.directory, journal: unfinished.journal, stop: stop,
                    progress: recorder.progress(of: .restore))
            }
            try Files.rename(unfinished.directory, to: directory)
            return restored
        }
        record.backup = restored
        record.dataTime = restored.time

        guard let settings = front.settings.delta else {
            recorder.skip(.sync, why: "the settings name no delta")
            return Draft(record: record, isLive: false)
        }
        let delta = front.syncDelta(settings, log: log)
        let degraded = try recorder.step(
            .sync, "bringing the delta from \(settings.from)",
            summary: { (outcome: DeltaOutcome) in outcome.description }
        ) {
            do {
                let plan = try delta.run(
                    into: directory, protecting: front.protectedPaths, owner: front.owner, stop: stop,
                    progress: recorder.progress(of: .sync))
                return DeltaOutcome.brought(plan)
            } catch let failure as RsyncFailure
                where failure.cause.isUnreachable && settings.whenUnreachable == .serveBackup
            {
                if failure != failure.cause {
                    // Half of the delta is in the directory: what the backup held is restored once more.
                    log.warning("\(failure); the backup is restored again, without the delta")
                    try Files.removeTree(directory)
                    try Files.makeNewDirectory(directory, mode: 0o700)
                    restored = try front.backupPlaces(log: log).restore(
                        into: directory, journal: nil, stop: stop, progress: recorder.progress(of: .sync))
                    (record.backup, record.dataTime) = (restored, restored.time)
                }
                return .unreachable(
                    failure.cause, served: restored.time.map { "the backup, \(Self.age($0)) old" } ?? "the backup")
            }
        }
        note(degraded, in: &record, from: settings.from)
        return Draft(record: record, isLive: false)
    }

    private static func age(_ time: Int64) -> String { Duration.seconds(max(0, Host.now - time)).spoken }

    private func note(_ outcome: DeltaOutcome, in record: inout ReleaseRecord, from source: String) {
        switch outcome {
        case .brought(let plan):
            for change in plan.entries.prefix(200) { log.detail("\(change.kind.rawValue): \(change.path)") }
            record.delta = .init(
                source: source, time: Host.now, created: plan.created, changed: plan.changed, deleted: plan.deleted)
            record.dataTime = Host.now
            record.degraded = nil
        case .unreachable(let failure, let served):
            record.degraded = "the orchestrator cannot be reached (\(failure)); serving \(served)"
            log.warning(record.degraded ?? "")
        }
    }

    /// The live release with the delta on top. Nothing is copied where the delta brings nothing.
    private func refresh(_ live: ReleaseRecord, _ front: Front, isBoot: Bool) throws(BootFailure) -> Draft {
        let current = layout.release(front.settings.app, live.identifier)
        guard let settings = front.settings.delta else { return try refreshFromBackup(live, front) }
        recorder.skip(.restore, why: "release \(live.identifier) is here; only the delta is brought")
        let delta = front.syncDelta(settings, log: log)
        var draft = Draft(record: live, isLive: true)
        let outcome = try recorder.step(
            .sync, "bringing the delta from \(settings.from)",
            summary: { (outcome: DeltaOutcome) in outcome.description }
        ) {
            do {
                let plan = try delta.plan(into: current, protecting: front.protectedPaths, stop: stop)
                if plan.isEmpty { return DeltaOutcome.brought(plan) }
                draft = try clone(live, front)
                return .brought(
                    try delta.run(
                        into: layout.release(front.settings.app, draft.record.identifier),
                        protecting: front.protectedPaths,
                        owner: front.owner, stop: stop, progress: recorder.progress(of: .sync)))
            } catch let failure as RsyncFailure
                where failure.cause.isUnreachable && isBoot && settings.whenUnreachable == .serveBackup
            {
                if !draft.isLive { try front.store.remove(draft.record.identifier) }
                draft = Draft(record: live, isLive: true)
                return .unreachable(
                    failure.cause,
                    served: "release \(live.identifier)" + (live.dataTime.map { ", \(Self.age($0)) old" } ?? ""))
            }
        }
        note(outcome, in: &draft.record, from: settings.from)
        return draft
    }

    /// Without a delta, a newer backup is the only way to newer data.
    private func refreshFromBackup(_ live: ReleaseRecord, _ front: Front) throws(BootFailure) -> Draft {
        let newest: RestoreBackup.Candidate
        do {
            newest = try front.backupPlaces(log: log).newest(stop: stop)
        } catch let stopped as StopReason {
            throw BootFailure(.restore, "looking for a newer backup in \(front.backupLocation)", stopped)
        } catch {
            // What is here was proved; that nothing newer can be had does not make it worse.
            var draft = Draft(record: live, isLive: true)
            draft.record.degraded =
                "no newer backup can be looked for (\(error)); serving release \(live.identifier)"
                + (live.dataTime.map { ", \(Self.age($0)) old" } ?? "")
            log.warning(draft.record.degraded ?? "")
            recorder.skip(.restore, why: "release \(live.identifier) is here")
            recorder.skip(.sync, why: "the settings name no delta")
            return draft
        }
        // Another place, or a copy that lags behind, may have older ones only: they are no news.
        let isOlder = live.backup?.time.flatMap { has in newest.time.map { $0 < has } } ?? false
        if isOlder || newest.object.key == live.backup?.key && newest.object.etag == live.backup?.etag {
            recorder.skip(
                .restore,
                why: "release \(live.identifier) is of "
                    + (isOlder ? "a newer backup than there is" : "the newest backup"))
            recorder.skip(.sync, why: "the settings name no delta")
            var draft = Draft(record: live, isLive: true)
            draft.record.degraded = nil
            return draft
        }
        return try restore(front)
    }

    private func clone(_ live: ReleaseRecord, _ front: Front) throws -> Draft {
        var record = try newRecord(front, base: live.identifier)
        record.backup = live.backup
        record.delta = live.delta
        record.dataTime = live.dataTime
        record.degraded = live.degraded
        // Until its own are placed.
        record.rendered = live.rendered
        let clone = try TreeClone.make(
            from: layout.release(front.settings.app, live.identifier),
            to: layout.release(front.settings.app, record.identifier), copied: front.settings.shared, stop: stop)
        log.detail("release \(record.identifier) begins as \(live.identifier): \(clone.files) files by \(clone.method)")
        return Draft(record: record, isLive: false)
    }

    // MARK: configuration, switch, proof

    private func goLive(_ draft: inout Draft, _ front: Front) throws(BootFailure) {
        try render(&draft, front)
        if draft.isLive {
            recorder.skip(.check, why: "nothing has changed")
            recorder.skip(.switchRelease, why: "release \(draft.record.identifier) is live already")
            front.services.ensureRunning(stop: stop)
            try proveLive(draft.record, front)
            try announce(draft.record, front)
            return
        }
        let record = try complete(draft, front)
        try check(draft, record, front)
        draft.record = try switchTo(record, front)
        try announce(draft.record, front)
    }

    /// The release that is live already must still answer. Where it does not, the front is not ready, whatever it was before.
    private func proveLive(_ record: ReleaseRecord, _ front: Front) throws(BootFailure) {
        do {
            try recorder.step(.prove, "asking the site", summary: { (_: Void) in front.proofSummary(record) }) {
                do {
                    try front.proof?.prove(record, stop: stop)
                } catch ProveRelease.Answer.wrongRelease {
                    // A service has something else in memory, where a reload once failed.
                    try front.services.reload(stop: stop)
                    try front.proof?.prove(record, stop: stop)
                }
                try front.store.save(record)
            }
        } catch {
            throw error.with(aftermath: "release \(record.identifier) is live and does not answer as it should")
        }
    }

    /// Renders for the draft. A live release whose configuration would change becomes the base of a new one.
    private func render(_ draft: inout Draft, _ front: Front) throws(BootFailure) {
        var now = draft
        draft = try recorder.step(
            .render, "rendering the templates",
            summary: { (draft: Draft) in
                draft.isLive ? "\(draft.files.count) files, as they are" : "\(draft.files.count) files"
            }
        ) {
            now.files = try rendered(for: now.record, front)
            if now.isLive, try !front.isInPlace(now.files, of: now.record) {
                let degraded = now.record.degraded
                now = try clone(now.record, front)
                now.record.degraded = degraded
                now.files = try rendered(for: now.record, front)
            }
            return now
        }
    }

    /// A program that complains about a rendered file quotes it: secrets are hidden in the spelling that the file has.
    private func rendered(for record: ReleaseRecord, _ front: Front) throws -> [RenderedFile] {
        let files = try front.render(record, log: log)
        recorder.hide(files.flatMap { file in file.entry.secretRanges.map { Secret(bytes: file.bytes[$0]) } })
        return files
    }

    /// The release's own rendered files, its shared paths and its owner; then it is on disk, and its record says so.
    private func complete(_ draft: Draft, _ front: Front) throws(BootFailure) -> ReleaseRecord {
        try BootFailure.inStep(.render, "completing release \(draft.record.identifier)") {
            let directory = layout.release(front.settings.app, draft.record.identifier)
            try SharedPaths(layout: layout, app: front.settings.app, owner: front.sharedOwner, stop: stop).link(
                front.settings.shared, in: directory)
            try front.place(draft.files, in: directory, replacing: draft.record)
            if Host.isSuperuser, let owner = front.owner {
                try Files.changeOwner(directory, owner: owner.owner, group: owner.group)
            }
            try Files.changeMode(directory, 0o755)
            try Files.synchronizeFileSystem(directory)
            var record = draft.record
            let host = draft.files.filter { $0.place == .host }
            record.configuration = host.map(\.entry)
            record.rendered = draft.files.filter { $0.place != .host }.map(\.entry)
            let contents = host.filter { $0.entry.kind == .file }.map { ($0.entry.digest, $0.bytes) }
            try front.store.save(record, contents: Dictionary(contents) { first, _ in first })
            return record
        }
    }

    private func check(_ draft: Draft, _ record: ReleaseRecord, _ front: Front) throws(BootFailure) {
        try recorder.step(
            .check, "checking the configuration as a whole", summary: { (words: String) in words }
        ) {
            let live = try front.store.live().flatMap { try front.store.record($0) }
            let paths = Set(record.configuration.map(\.path))
            let scripts = draft.files.filter { $0.place != .host && $0.entry.path.hasSuffix(".php") }
                .map { layout.path($0.entry.path) }
            return try CheckConfiguration(layout: layout, services: front.settings.services, stop: stop, log: log)
                .check(
                    files: draft.files.filter { $0.place == .host },
                    removed: (live?.configuration ?? []).map(\.path).filter { !paths.contains($0) }, scripts: scripts,
                    rehearsal: live == nil ? nil : front.rehearsal(of: record))
        }
    }

    private func switchTo(_ target: ReleaseRecord, _ front: Front) throws(BootFailure) -> ReleaseRecord {
        let change = SwitchRelease(
            store: front.store, services: front.services, proof: front.proof, health: HealthFile(layout: layout),
            log: log)
        try recorder.step(
            .switchRelease, "switching to release \(target.identifier)",
            summary: { (_: Void) in
                "release \(target.identifier) and \(target.configuration.count) configuration files are in place"
            }
        ) {
            try change.switchTo(target, stop: stop)
        }
        let proved = try recorder.step(
            .prove, "proving release \(target.identifier)",
            summary: { (record: ReleaseRecord) in front.proofSummary(record) }
        ) {
            try change.prove(target, stop: stop)
        }
        recorder.update { report in
            report.release = proved.identifier
            report.previousRelease = proved.identifier
        }
        return proved
    }

    private func announce(_ record: ReleaseRecord, _ front: Front) throws(BootFailure) {
        recorder.update { report in
            report.release = record.identifier
            report.dataTime = record.dataTime
            report.degraded = record.degraded
        }
        let contents = HealthFile.Contents(
            app: record.app, environment: record.environment, release: record.identifier,
            bootIdentifier: Host.bootIdentifier(layout), since: Host.now, degraded: record.degraded)
        try recorder.step(
            .announce, "announcing that the front is ready",
            summary: { (names: [String]) in names.joined(separator: ", ") }
        ) {
            try front.announcers.map { announcer in
                try announcer.announce(.ready(contents), stop: stop)
                return announcer.name
            }
        }
        // What is not kept any more goes last: a front that is ready is not held up by it, nor failed.
        do {
            for identifier in try front.store.prune(keeping: front.settings.keep) {
                log.detail("removed release \(identifier)")
            }
        } catch {
            log.warning("old releases cannot be removed: \(error)")
        }
    }
}

/// What became of the delta.
enum DeltaOutcome: CustomStringConvertible {
    case brought(RsyncPlan)
    case unreachable(RsyncFailure, served: String)

    var description: String {
        switch self {
        case .brought(let plan): plan.isEmpty ? "nothing has changed" : plan.summary
        case .unreachable(_, let served): "the orchestrator cannot be reached; serving \(served)"
        }
    }
}
