/// Jobs on their way from one thread to several, at most `room` of them waiting. The first failure of anybody ends it for all:
/// whoever puts then gets that error, and whoever takes gets nothing more.
final class WorkQueue<Job>: @unchecked Sendable {
    private let monitor = Monitor()
    private let room: Int
    private var jobs: [Job] = []
    private var isFinished = false
    private var failure: (any Error)?

    init(room: Int) { self.room = room }

    /// Waits for room. Throws the first failure, or `StopReason`.
    func put(_ job: Job, stop: StopFlag) throws {
        try monitor.locked {
            while jobs.count >= room && failure == nil {
                try stop.check()
                monitor.wait(milliseconds: 50)
            }
            if let failure { throw failure }
            jobs.append(job)
            monitor.wake()
        }
    }

    /// The oldest job, or nil when there will be none any more.
    func take() -> Job? {
        monitor.locked {
            while jobs.isEmpty && !isFinished && failure == nil { monitor.wait(milliseconds: 1000) }
            if failure != nil || jobs.isEmpty { return nil }
            let job = jobs.removeFirst()
            monitor.wake()
            return job
        }
    }

    /// Nothing more will be put.
    func finish() {
        monitor.locked {
            isFinished = true
            monitor.wake()
        }
    }

    /// The first one counts.
    func fail(_ error: any Error) {
        monitor.locked {
            if failure == nil { failure = error }
            jobs.removeAll()
            monitor.wake()
        }
    }

    var firstFailure: (any Error)? { monitor.locked { failure } }
}

/// Threads that work off one queue, each with a state of its own. They end with the queue.
struct Workers {
    private let threads: [WorkerThread]

    /// - Parameter body: runs once on each thread; what it throws fails the queue.
    init<Job>(
        _ name: String, count: Int, on queue: WorkQueue<Job>, body: @escaping @Sendable (Int) throws -> Void
    ) throws(HostError) {
        var started: [WorkerThread] = []
        do throws(HostError) {
            for number in 0..<max(1, count) {
                started.append(
                    try WorkerThread("\(name)-\(number)") {
                        do { try body(number) } catch { queue.fail(error) }
                    })
            }
        } catch {
            queue.fail(error)
            for thread in started { thread.join() }
            throw error
        }
        threads = started
    }

    /// To be called exactly once.
    func join() { for thread in threads { thread.join() } }
}

/// Work over numbered jobs on several threads, whose results come out in the order of the numbers. At most `window` jobs are
/// begun ahead of the result that is taken next, which bounds the memory.
public final class OrderedWork<Output: Sendable>: Sendable {
    private final class Shared: @unchecked Sendable {
        let monitor = Monitor()
        let count: Int
        let window: Int
        var begun = 0
        var taken = 0
        var results: [Int: Output] = [:]
        var failure: (any Error)?
        var isAbandoned = false

        init(count: Int, window: Int) {
            self.count = count
            self.window = window
        }

        /// The number of the next job, or nil when there is none.
        func begin() -> Int? {
            monitor.locked {
                while begun < count && begun - taken >= window && failure == nil && !isAbandoned {
                    monitor.wait(milliseconds: 1000)
                }
                if begun >= count || failure != nil || isAbandoned { return nil }
                begun += 1
                return begun - 1
            }
        }

        func deliver(_ number: Int, _ output: Output) {
            monitor.locked {
                results[number] = output
                monitor.wake()
            }
        }

        func fail(_ error: any Error) {
            monitor.locked {
                if failure == nil { failure = error }
                monitor.wake()
            }
        }
    }

    private let shared: Shared
    private let threads: [WorkerThread]

    /// - Parameter makeWorker: called once on each thread, for what a thread keeps from job to job.
    public init(
        _ name: String, jobs count: Int, threads: Int, window: Int,
        makeWorker: @escaping @Sendable () throws -> (Int) throws -> Output
    ) throws(HostError) {
        let shared = Shared(count: count, window: max(1, window))
        var started: [WorkerThread] = []
        do throws(HostError) {
            for number in 0..<max(1, threads) {
                started.append(
                    try WorkerThread("\(name)-\(number)") {
                        do {
                            let work = try makeWorker()
                            while let job = shared.begin() { shared.deliver(job, try work(job)) }
                        } catch {
                            shared.fail(error)
                        }
                    })
            }
        } catch {
            shared.fail(error)
            for thread in started { thread.join() }
            throw error
        }
        self.shared = shared
        self.threads = started
    }

    /// The work that is begun is brought to its end, and no more is begun.
    deinit {
        shared.monitor.locked {
            shared.isAbandoned = true
            shared.monitor.wake()
        }
        for thread in threads { thread.join() }
    }

    /// The next result in order, or nil after the last one. Throws the first failure of any thread, or `StopReason`. One thread
    /// calls it.
    public func next(stop: StopFlag) throws -> Output? {
        try shared.monitor.locked {
            if shared.taken == shared.count { return nil }
            while true {
                if let failure = shared.failure { throw failure }
                try stop.check()
                if let output = shared.results.removeValue(forKey: shared.taken) {
                    shared.taken += 1
                    shared.monitor.wake()
                    return output
                }
                shared.monitor.wait(milliseconds: 50)
            }
        }
    }
}
