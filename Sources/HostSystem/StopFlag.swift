internal import Glibc
internal import Synchronization

/// Why a run must end before its work is done.
public enum StopReason: Error, Sendable, Equatable, CustomStringConvertible {
    case deadline
    case signal(CInt)

    public var description: String {
        switch self {
        case .deadline: "the deadline has passed"
        case .signal(SIGTERM): "stopped by SIGTERM"
        case .signal(SIGINT): "stopped by SIGINT"
        case .signal(SIGHUP): "stopped by SIGHUP"
        case .signal(let number): "stopped by signal \(number)"
        }
    }
}

/// The one flag that ends a run: set by a signal handler or by the passing of the deadline, looked at by every wait, transfer
/// and loop. Safe from any thread; `raise` is also safe from a signal handler. Time is monotonic: a clock set during the run
/// changes nothing.
public final class StopFlag: Sendable {
    private let signal = Atomic<CInt>(0)
    private let begun = ContinuousClock.now
    /// Nanoseconds after `begun`; negative for none.
    private let limit = Atomic<Int64>(-1)

    public init(deadline: Duration? = nil) {
        if let deadline { limit(to: deadline) }
    }

    /// Sets the deadline, counted from the flag's creation: the settings that name it are read only after the run has begun.
    public func limit(to duration: Duration) {
        let nanoseconds = min(duration.inSeconds * 1e9, 9e18)
        limit.store(Int64(nanoseconds), ordering: .sequentiallyConsistent)
    }

    private var deadline: ContinuousClock.Instant? {
        let nanoseconds = limit.load(ordering: .sequentiallyConsistent)
        return nanoseconds < 0 ? nil : begun.advanced(by: .nanoseconds(nanoseconds))
    }

    /// The first signal wins.
    public func raise(signal number: CInt) {
        _ = signal.compareExchange(expected: 0, desired: number, ordering: .sequentiallyConsistent)
    }

    public var reason: StopReason? {
        let number = signal.load(ordering: .sequentiallyConsistent)
        if number != 0 { return .signal(number) }
        if let deadline, ContinuousClock.now >= deadline { return .deadline }
        return nil
    }

    /// Throws the `StopReason` when the run must end.
    public func check() throws(StopReason) {
        if let reason { throw reason }
    }

    /// Sleeps on the calling thread, in slices, so that a stop is noticed within 50 ms.
    public func sleep(_ duration: Duration) throws(StopReason) {
        let end = ContinuousClock.now.advanced(by: duration)
        while true {
            try check()
            let left = ContinuousClock.now.duration(to: end)
            if left <= .zero { return }
            usleep(UInt32(min(50_000, max(1, left.inSeconds * 1e6))))
        }
    }
}
