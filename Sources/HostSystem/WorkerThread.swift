internal import CLinux
internal import Glibc

/// A thread of our own. libcurl and libarchive block; Swift's cooperative pool has as many threads as processors and does not
/// grow, so two parked tasks on two processors would hang the program for good.
final class WorkerThread: Sendable {
    private final class Body {
        let name: String
        let run: () -> Void
        init(name: String, run: @escaping () -> Void) {
            self.name = name
            self.run = run
        }
    }

    private let thread: pthread_t

    /// Starts `run` on a new thread with this name (at most 15 bytes). Throws `HostError` where the kernel gives no thread.
    init(_ name: String, run: @escaping @Sendable () -> Void) throws(HostError) {
        let body = Unmanaged.passRetained(Body(name: name, run: run))
        var started = pthread_t()
        // Signals belong to the main thread: a handler must not interrupt a transfer.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        let code = pthread_create(
            &started, nil,
            { context in
                guard let context else { return nil }
                let body = Unmanaged<Body>.fromOpaque(context).takeRetainedValue()
                amorce_name_thread(body.name)
                body.run()
                return nil
            }, body.toOpaque())
        pthread_sigmask(SIG_SETMASK, &before, nil)
        guard code == 0 else {
            body.release()
            throw HostError("pthread_create", name, errno: code)
        }
        thread = started
    }

    /// Waits for its end. To be called exactly once.
    func join() { pthread_join(thread, nil) }
}

/// A lock with one condition. Waits are bounded, so that whoever waits can look at the stop flag.
final class Monitor: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    init() {
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func locked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    /// With the lock held: gives it up until `wake` or until `milliseconds` have passed.
    func wait(milliseconds: Int) {
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &end)
        end.tv_nsec += milliseconds * 1_000_000
        end.tv_sec += end.tv_nsec / 1_000_000_000
        end.tv_nsec %= 1_000_000_000
        pthread_cond_timedwait(condition, mutex, &end)
    }

    func wake() { pthread_cond_broadcast(condition) }
}
