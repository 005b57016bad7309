import Dispatch
import Foundation
import Glibc

/// Code on a thread that may not read what is another's: setfsuid(2) is for one thread, and those that it starts. Needs the
/// superuser.
public enum WithoutRights {
    private final class Box<Value>: @unchecked Sendable { var result: Result<Value, any Error>? }

    struct NoResult: Error {}

    public static func run<Value>(_ body: @escaping () throws -> Value) throws -> Value {
        let box = Box<Value>()
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) let body = body
        Thread {
            if let symbol = dlsym(nil, "setfsuid") {
                _ = unsafeBitCast(symbol, to: (@convention(c) (UInt32) -> Int32).self)(65534)
                box.result = Result { try body() }
            }
            done.signal()
        }.start()
        done.wait()
        guard let result = box.result else { throw NoResult() }
        return try result.get()
    }
}
