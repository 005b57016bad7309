import Foundation
import HostSystem

/// Runs code on a thread with mounts of its own, which no other thread or process sees. Needs root.
public enum InMountNamespace {
    private final class Work<Result>: @unchecked Sendable {
        let source: String
        let target: String
        let body: () -> Result
        var result: Result?
        var problem: HostError?

        init(source: String, target: String, body: @escaping () -> Result) {
            self.source = source
            self.target = target
            self.body = body
        }

        func run() {
            // CLONE_NEWNS; the function and the constant are hidden behind a GNU macro.
            guard let symbol = dlsym(nil, "unshare"),
                unsafeBitCast(symbol, to: (@convention(c) (Int32) -> Int32).self)(0x0002_0000) == 0
            else {
                problem = HostError("unshare", target, errno: errno)
                return
            }
            guard mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
                mount(source, target, nil, UInt(MS_BIND), nil) == 0
            else {
                problem = HostError("mount", target, errno: errno)
                return
            }
            result = body()
        }
    }

    /// Throws `HostError` where the namespace or the bind mount of `source` over `target` cannot be had.
    public static func run<Result>(binding source: String, over target: String, _ body: @escaping () -> Result) throws
        -> Result
    {
        let work = Work(source: source, target: target, body: body)
        let done = DispatchSemaphore(value: 0)
        let thread = Thread {
            work.run()
            done.signal()
        }
        thread.start()
        guard done.wait(timeout: .now() + 120) == .success else { throw HostError("unshare", target, errno: ETIMEDOUT) }
        if let problem = work.problem { throw problem }
        guard let result = work.result else { throw HostError("unshare", target, errno: EINVAL) }
        return result
    }
}
