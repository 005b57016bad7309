internal import HostSystem

/// Why a run did not reach its end, in the words of an engineer: the step, what was attempted on what, the cause, and what the
/// person can do next. Made once, at the edge between a step and the sequence; never logged and thrown both.
public struct BootFailure: Error, Sendable, CustomStringConvertible {
    public let step: StepName
    /// `restoring s3://acme-backups/boutique/20261124.tar.zst`
    public let attempted: String
    public let cause: String
    public let advice: String?
    public let status: ExitStatus
    /// Whether the same run, started again, may succeed without anybody changing anything.
    public let retryCanHelp: Bool
    /// What is served now, where it is not simply what was served before.
    public let aftermath: String?

    public init(
        _ step: StepName, _ attempted: String, cause: String, advice: String? = nil, status: ExitStatus = .failed,
        retryCanHelp: Bool = false, aftermath: String? = nil
    ) {
        self.step = step
        self.attempted = attempted
        self.cause = cause
        self.advice = advice
        self.status = status
        self.retryCanHelp = retryCanHelp
        self.aftermath = aftermath
    }

    public var description: String { "\(step.rawValue): \(attempted): \(cause)" }

    /// Work that is no recorded step of its own and fails as a part of one.
    static func inStep<Result>(
        _ step: StepName, _ attempted: String, _ body: () throws -> Result
    ) throws(BootFailure) -> Result {
        do {
            return try body()
        } catch {
            throw BootFailure(step, attempted, error)
        }
    }

    func with(aftermath: String) -> BootFailure {
        BootFailure(
            step, attempted, cause: cause, advice: advice, status: status, retryCanHelp: retryCanHelp,
            aftermath: aftermath)
    }

    /// The same failure with every text passed through `change`.
    func mapped(_ change: (String) -> String) -> BootFailure {
        BootFailure(
            step, change(attempted), cause: change(cause), advice: advice.map(change), status: status,
            retryCanHelp: retryCanHelp, aftermath: aftermath.map(change))
    }

    /// The failure that an error of a lower room means. Decisions are cases, never text.
    public init(_ step: StepName, _ attempted: String, _ error: any Error) {
        switch error {
        case let failure as BootFailure:
            self = failure
        case let stopped as StopReason:
            self.init(
                step, attempted, cause: "\(stopped)",
                advice: stopped == .deadline
                    ? "raise `deadline`, or see in the step times of `amorce status` what took so long" : nil,
                status: ExitStatus(stopped), retryCanHelp: true)
        case let host as HostError where host.isOutOfRoom:
            self.init(
                step, attempted, cause: host.description,
                advice: "free room or inodes on that file system (df -h, df -i), or lower `keep`", status: .noRoom)
        case let host as HostError where host.isPermission:
            self.init(
                step, attempted, cause: host.description,
                advice: Host.isSuperuser ? nil : "run it as root", status: .permission)
        case let unproved as SwitchRelease.NotProved:
            let inner = BootFailure(unproved.step, attempted, unproved.cause)
            self.init(
                unproved.step, attempted, cause: inner.cause, advice: inner.advice, status: inner.status,
                retryCanHelp: inner.retryCanHelp,
                aftermath: unproved.afterwards.map {
                    "uncertain: what was served before could not be put back whole: \($0)"
                })
        case let explained as any ExplainedError:
            self.init(
                step, attempted, cause: explained.description, advice: explained.advice, status: explained.exitStatus,
                retryCanHelp: explained.retryCanHelp)
        case let busy as FileLock.Busy:
            self.init(
                step, attempted, cause: busy.description, advice: "wait for it (amorce status --wait), or stop it",
                status: .locked, retryCanHelp: true)
        default:
            self.init(step, attempted, cause: "\(error)")
        }
    }
}
