import Foundation
import Synchronization

/// The same work for each of several things at once, on threads of their own.
public enum AtOnce {
    /// Throws the first error.
    public static func run<Value: Sendable>(
        _ values: [Value], _ body: @escaping @Sendable (Value) throws -> Void
    ) throws {
        let failure = Mutex<(any Error)?>(nil)
        let done = DispatchGroup()
        for value in values {
            done.enter()
            Thread {
                do {
                    try body(value)
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
                done.leave()
            }.start()
        }
        done.wait()
        if let error = failure.withLock({ $0 }) { throw error }
    }
}
