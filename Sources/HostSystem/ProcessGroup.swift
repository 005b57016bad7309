internal import Glibc

/// The processes of one group, as /proc shows them (proc_pid_stat(5), proc_pid_io(5)).
public enum ProcessGroup {
    public struct Member: Sendable, Equatable {
        public let process: Int32
        /// The program's name as the kernel keeps it: at most 15 bytes.
        public let name: String
        /// It has ended and waits for its parent to take note; it can do nothing any more.
        public let isZombie: Bool
        /// Bytes that its read calls returned, from files, pipes and sockets alike; nil where the kernel does not tell.
        public let bytesRead: Int64?
    }

    /// A snapshot: a process may have ended by the time that it is looked at. Empty where /proc is not mounted.
    public static func members(of group: Int32) -> [Member] {
        ((try? Files.names(in: "/proc")) ?? []).compactMap { name in
            guard let process = Int32(name), let raw = try? FileReading.bytes("/proc/\(name)/stat", limit: 4096) else {
                return nil
            }
            // pid (name) state ppid pgrp …: the name may hold anything, parentheses too, so the last one ends it.
            guard let open = raw.firstIndex(of: 0x28), let close = raw.lastIndex(of: 0x29), open < close else { return nil }
            let fields = raw[(close + 1)...].split(separator: 0x20)
            guard fields.count > 2, Int32(String(decoding: fields[2], as: UTF8.self)) == group else { return nil }
            return Member(
                process: process, name: String(decoding: raw[(open + 1)..<close], as: UTF8.self),
                isZombie: fields[0].first == 0x5a || fields[0].first == 0x58, bytesRead: bytesRead(by: name))
        }
    }

    private static func bytesRead(by process: String) -> Int64? {
        guard let text = try? FileReading.text("/proc/\(process)/io", limit: 4096) else { return nil }
        return text.split(separator: "\n").first { $0.hasPrefix("rchar: ") }.flatMap { Int64($0.dropFirst(7)) }
    }

    /// Kills whoever is left in the group and waits until nobody in it can do anything any more. False when a process is
    /// still there after `patience` (it hangs in the kernel, on a dead disk for instance).
    @discardableResult
    static func end(_ group: Int32, patience: Duration = .seconds(5)) -> Bool {
        let limit = ContinuousClock.now.advanced(by: patience)
        while true {
            if kill(-group, SIGKILL) != 0 && errno == ESRCH { return true }
            // A zombie still answers to kill(2), until its parent takes note; a PID 1 that never does must not hold us up.
            if !members(of: group).contains(where: { !$0.isZombie }) { return true }
            if ContinuousClock.now > limit { return false }
            usleep(10_000)
        }
    }
}
