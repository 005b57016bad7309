internal import Glibc
internal import Synchronization

/// A program that serves while something else is done: it is started on a thread of its own, and its whole process group is
/// gone when `end` returns, or when this process dies, however it dies.
public final class ServingProgram: Sendable {
    private let stop = StopFlag()
    private let outcome: Outcome
    private let thread: WorkerThread

    private final class Outcome: Sendable {
        let result = Mutex<Result<ChildResult, any Error>?>(nil)
    }

    /// The program runs in the network namespace of the calling thread.
    public init(_ arguments: [String]) throws {
        let stop = stop
        let outcome = Outcome()
        self.outcome = outcome
        thread = try WorkerThread("serving") {
            var options = ChildProcess.Options()
            options.endsGroup = true
            options.isTethered = true
            let result = Result { try ChildProcess.run(arguments, options: options, stop: stop) }
            outcome.result.withLock { $0 = result }
        }
    }

    /// Why it does not serve any more, in words; nil while it runs.
    public var failure: String? {
        outcome.result.withLock { result in
            switch result {
            case nil: nil
            case .success(let ended): ended.explanation
            case .failure(let error): "\(error)"
            }
        }
    }

    /// To be called exactly once.
    public func end() {
        stop.raise(signal: SIGTERM)
        thread.join()
    }
}
