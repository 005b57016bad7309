internal import HostSystem

/// Makes a complete release the live one: code, configuration and services as one transaction, proved, or taken back whole.
struct SwitchRelease {
    let store: ReleaseStore
    let services: ServiceControl
    /// Nil where the settings name no probe: the switch is then proved by the services' reload alone.
    let proof: ProveRelease?
    let health: HealthFile
    let log: Log

    /// The new release did not prove itself. What serves now is said in the failure's cause.
    struct NotProved: Error {
        let cause: any Error
        let step: StepName
        /// Nil: the release before it is live and proved again, or there was none before.
        let afterwards: String?
    }

    private var configuration: ConfigurationSwitch { ConfigurationSwitch(store: store) }

    /// Everything up to the last reload. The journal stays open until `prove` or `takeBack`.
    func switchTo(_ target: ReleaseRecord, stop: StopFlag) throws {
        let source = try store.live().flatMap { try store.record($0) }
        try stop.check()
        // From here on the front is not proved.
        try health.withdraw()
        try store.openJournal(from: source?.identifier, to: target.identifier, services: services.services)
        do {
            try configuration.apply(target, over: source)
            try services.reload(stop: stop)
        } catch {
            throw NotProved(cause: error, step: .switchRelease, afterwards: takeBack(target, to: source))
        }
    }

    /// Asks the site. When it answers as the new release, and that is recorded, the switch is final. A record that cannot be
    /// written takes the switch back too: else the next run would find a front that serves what no record knows as live.
    func prove(_ target: ReleaseRecord, stop: StopFlag) throws -> ReleaseRecord {
        let source = try store.live().flatMap { try store.record($0) }
        var proved = target
        proved.state = .proved
        if let source, source.identifier != target.identifier {
            // A release that a rollback would refuse is none to go back to.
            let isOwn = source.environment == target.environment && source.instance == target.instance
            proved.previous = isOwn ? source.identifier : nil
        }
        do {
            try proof?.prove(target, stop: stop)
            try store.save(proved)
            try store.setLive(target.identifier)
        } catch {
            throw NotProved(cause: error, step: .prove, afterwards: takeBack(target, to: source))
        }
        do {
            try store.closeJournal()
        } catch {
            // Proved and recorded it is: the next run finds that out and closes it.
            log.warning("the journal of the switch cannot be closed: \(error)")
        }
        return proved
    }

    /// Puts back what was live before. Runs to its end even when the run was told to stop, within a minute of its own. Returns
    /// nil when the old release is proved again (or there was none), else what is wrong now.
    private func takeBack(_ target: ReleaseRecord, to source: ReleaseRecord?) -> String? {
        let stop = StopFlag(deadline: .seconds(60))
        log.warning(
            source.map { "taking the switch back: release \($0.identifier) is put in place again" }
                ?? "taking the switch back: there was no release before")
        do {
            try configuration.apply(source, over: target)
            // Written only where it must be: on a full disk there is no room for what says the same.
            if try store.live() != source?.identifier { try store.setLive(source?.identifier) }
            if let source {
                try services.reload(stop: stop)
                try proof?.prove(source, stop: stop)
            } else {
                try? services.reload(stop: stop)
            }
            if target.state != .proved {
                var rejected = target
                rejected.state = .rejected
                // The next run removes it with or without this note.
                try? store.save(rejected)
            }
            try store.closeJournal()
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// A run that was killed in the middle of a switch left its journal: what was live before is put back, and the services of
    /// that switch load it again. Needs no settings, so that it works whatever the settings say now.
    /// - Parameter filesOnly: before the services have started at all (early in a machine's boot).
    /// - Returns: what was done, or nil when there was nothing to do.
    static func recover(
        store: ReleaseStore, health: HealthFile, filesOnly: Bool, log: Log, stop: StopFlag
    ) throws -> String? {
        let configuration = ConfigurationSwitch(store: store)
        guard let journal = try store.journal(), journal.app == store.app else { return nil }
        if try store.live() == journal.to {
            // Proved and recorded; only the journal was not closed any more.
            try store.closeJournal()
            return nil
        }
        let target = try store.record(journal.to)
        let source = try journal.from.flatMap { try store.record($0) }
        try health.withdraw()
        try configuration.apply(source, over: target)
        if var target, target.state == .complete {
            target.state = .rejected
            try store.save(target)
        }
        // Without a release before it there is nothing to load again: PHP-FPM cannot even run without a pool. What the services
        // have in memory is not said to be ready, and the next switch replaces it.
        var isLoaded = true
        if !filesOnly && source != nil {
            do {
                try ServiceControl(journal.services, log: log).reload(stop: stop)
            } catch let error where !(error is StopReason) {
                // They still serve what was taken back. The journal stays open for whoever has better settings.
                log.warning("after taking a switch back: \(error)")
                isLoaded = false
            }
        }
        if isLoaded { try store.closeJournal() }
        return source.map { "a switch to \(journal.to) was cut off; release \($0.identifier) is in place again" }
            ?? "a switch to \(journal.to) was cut off; there was no release before it"
    }
}
