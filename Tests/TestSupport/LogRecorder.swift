import Foundation
public import HostSystem
import Synchronization

/// Keeps what was logged.
public final class LogRecorder: Sendable {
    private let stored = Mutex<[String]>([])

    public init() {}
    public var log: Log { Log { level, text in self.stored.withLock { $0.append("\(level.name): \(text)") } } }
    public var lines: [String] { stored.withLock { $0 } }
    public var text: String { lines.joined(separator: "\n") }

    /// Waits until a line holds it; false after half a minute.
    public func wait(for part: String) -> Bool {
        for _ in 0..<600 {
            if text.contains(part) { return true }
            usleep(50_000)
        }
        return false
    }
}
