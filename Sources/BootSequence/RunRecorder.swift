internal import FoundationEssentials
public import HostSystem
internal import Synchronization

/// What happens during a run, for whoever shows it. Called from any thread, in order per thread.
public enum RunEvent: Sendable {
    case started(StepName)
    case progress(StepName, Progress)
    case finished(StepName, Duration, summary: String)
    case skipped(StepName, why: String)
    case failed(StepName, Duration, BootFailure)
    case message(LogLevel, String)
    case ended(RunReport)
}

/// Wraps every step: times it, fills the report, tells the observer, and keeps `/run/amorce/status.json` true at each change.
/// Owned by the run's main thread; `log` and progress may be used from any thread.
public final class RunRecorder: Sendable {
    private let guarded: Mutex<RunReport>
    private let observer: @Sendable (RunEvent) -> Void
    private let layout: HostLayout
    private let keepsStatus: Bool
    private let begun = ContinuousClock.now
    private let redaction = Mutex(Redaction())

    /// - Parameter keepsStatus: false for commands that change nothing (`plan`, `render`): their runs are not the front's state.
    public init(
        report: RunReport, layout: HostLayout, keepsStatus: Bool, observer: @escaping @Sendable (RunEvent) -> Void
    ) {
        guarded = Mutex(report)
        self.layout = layout
        self.keepsStatus = keepsStatus
        self.observer = observer
    }

    /// From now on none of these can be said, whoever quotes them: a page that shows a stack trace, a program's error message.
    func hide(_ secrets: [Secret]) { redaction.withLock { $0.add(secrets) } }

    private func redacted(_ text: String) -> String { redaction.withLock { $0.apply(text) } }

    public var report: RunReport { guarded.withLock { $0 } }

    public var log: Log {
        Log { [self] level, raw in
            let message = redacted(raw)
            if level == .warning { guarded.withLock { $0.warnings.append(message) } }
            observer(.message(level, message))
        }
    }

    public func update(_ change: (inout RunReport) -> Void) {
        guarded.withLock { change(&$0) }
        save()
    }

    public func progress(of step: StepName) -> ProgressHandler {
        { [observer] progress in observer(.progress(step, progress)) }
    }

    public func skip(_ step: StepName, why: String) {
        update { $0.steps.append(.init(name: step, state: .skipped, seconds: 0, summary: why)) }
        observer(.skipped(step, why: why))
    }

    /// Runs one step. `summary` words what came of it; any error leaves as the `BootFailure` of this step.
    @discardableResult
    public func step<Result>(
        _ name: StepName, _ attempted: String, summary: (Result) -> String, _ body: () throws -> Result
    ) throws(BootFailure) -> Result {
        let begun = ContinuousClock.now
        update { $0.steps.append(.init(name: name, state: .running, seconds: 0, summary: "")) }
        observer(.started(name))
        do {
            let result = try body()
            let duration = ContinuousClock.now - begun
            let words = redacted(summary(result))
            finish(name, .done, duration, words)
            observer(.finished(name, duration, summary: words))
            return result
        } catch {
            let failure = BootFailure(name, attempted, error).mapped(redacted)
            let duration = ContinuousClock.now - begun
            finish(name, .failed, duration, failure.cause)
            observer(.failed(name, duration, failure))
            throw failure
        }
    }

    private func finish(_ name: StepName, _ state: RunReport.Step.State, _ duration: Duration, _ summary: String) {
        update { report in
            guard let index = report.steps.lastIndex(where: { $0.name == name }) else { return }
            report.steps[index].state = state
            report.steps[index].seconds = duration.inSeconds
            report.steps[index].summary = summary
        }
    }

    /// Closes the report. The copy in the state directory outlives the boot; the one in /run says that it was this boot's.
    public func end(_ outcome: RunReport.Outcome, failure: BootFailure? = nil) {
        update { report in
            report.outcome = outcome
            report.ended = Host.now
            report.seconds = (ContinuousClock.now - begun).inSeconds
            if let failure {
                report.failure = .init(
                    step: failure.step, attempted: failure.attempted, cause: failure.cause, advice: failure.advice,
                    exitCode: failure.status.code, retryCanHelp: failure.retryCanHelp)
            }
        }
        if keepsStatus, let bytes = try? Self.encode(report) {
            try? AtomicFile.write(bytes, to: layout.state + "/last-report.json", mode: 0o600)
        }
        observer(.ended(report))
    }

    private func save() {
        guard keepsStatus, let bytes = try? Self.encode(report) else { return }
        // A status that cannot be written must not fail a boot that works; /run full shows in the log of the next step.
        try? AtomicFile.write(bytes, to: layout.statusFile, mode: 0o644)
    }

    static func encode(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value)) + [0x0a]
    }

    static func decode<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8]) throws -> Value {
        try JSONDecoder().decode(type, from: Data(bytes))
    }
}
