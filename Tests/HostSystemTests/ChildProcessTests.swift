import Foundation
import TestSupport
import Testing

@testable import HostSystem

@Suite struct ChildProcessTests {
    @Test func exitStatusAndOutputComeBack() throws {
        let result = try Program.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        #expect(result.end == .exited(7))
        #expect(result.output == Array("out\n".utf8))
        #expect(result.errors == Array("err\n".utf8))
    }

    @Test func killedBySignal() throws {
        #expect(try Program.run(["sh", "-c", "kill -9 $$"]).end == .signalled(SIGKILL))
    }

    @Test func missingProgramIsNamed() {
        #expect(throws: ChildProcess.NotFound.self) { try Program.run(["no-such-program-here"]) }
    }

    @Test func aFloodOfOutputDoesNotHideTheTimeout() throws {
        #expect(try Program.run(["yes"], timeout: .milliseconds(300)).end == .timedOut)
    }

    @Test func largeOutputIsWhole() throws {
        let output = try Program.check(["head", "-c", "5000000", "/dev/zero"])
        #expect(output.count == 5_000_000)
    }

    @Test func childHasASessionOfItsOwnAndNoTerminal() throws {
        let fields = String(decoding: try Program.check(["cat", "/proc/self/stat"]), as: UTF8.self).split(
            separator: " ")
        #expect(fields[0] == fields[4], "process group")
        #expect(fields[0] == fields[5], "session")
        #expect(fields[6] == "0", "controlling terminal")
    }

    private func sleepers(_ mark: String) throws -> [Int32] {
        let output = try Program.run(["pgrep", "-f", "^sleep \(mark)"]).output
        return String(decoding: output, as: UTF8.self).split(separator: "\n").compactMap { Int32($0) }
    }

    private func isAlive(_ mark: String) throws -> Bool { try !sleepers(mark).isEmpty }

    /// A duration that no other process sleeps for, to be found by.
    private func mark() -> String { "86\(Int.random(in: 10_000_000...99_999_999))" }

    @Test func workersEndWithTheirLeader() throws {
        let mark = mark()
        var options = ChildProcess.Options()
        options.endsGroup = true
        let result = try ChildProcess.run(
            ["sh", "-c", "sleep \(mark) & kill -9 $$"], options: options, stop: .bounded())
        #expect(result.end == .signalled(SIGKILL))
        #expect(try !isAlive(mark))
    }

    @Test func aDaemonThatWasStartedStays() throws {
        let mark = mark()
        _ = try Program.check(["sh", "-c", "sleep \(mark) >/dev/null 2>&1 & exit 0"])
        let left = try sleepers(mark)
        #expect(left.count == 1)
        for process in left { kill(process, SIGKILL) }
    }

    @Test func stopEndsTheWholeGroup() throws {
        let mark = mark()
        let stop = StopFlag(deadline: .milliseconds(400))
        #expect(throws: StopReason.deadline) {
            try ChildProcess.run(["sh", "-c", "trap '' TERM; sleep \(mark) & sleep \(mark)"], stop: stop)
        }
        #expect(try !isAlive(mark))
    }

    @Test func watchdogEndsTheWholeGroup() throws {
        let mark = mark()
        var options = ChildProcess.Options()
        var asked = 0
        options.isStalled = { _ in
            asked += 1
            return asked > 3
        }
        let result = try ChildProcess.run(
            ["sh", "-c", "sleep \(mark) & sleep \(mark)"], options: options, stop: .bounded())
        #expect(result.end == .stalled)
        #expect(try !isAlive(mark))
    }

    @Test func tetheredChildrenRunAsAnyOther() throws {
        var options = ChildProcess.Options()
        options.isTethered = true
        let arguments = ["printf", "%s|", "a b", "'; exit 9", "$HOME", "\"\n"]
        let result = try ChildProcess.run(arguments, options: options, stop: .bounded())
        #expect(result.end == .exited(0))
        #expect(String(decoding: result.output, as: UTF8.self) == "a b|'; exit 9|$HOME|\"\n|")
        #expect(try ChildProcess.run(["sh", "-c", "exit 5"], options: options, stop: .bounded()).end == .exited(5))
    }

    /// The holder of the pipe dies as by SIGKILL: nothing of the group may be left.
    @Test func tetheredGroupDiesWithItsStarter() throws {
        let mark = mark()
        let starter = Process()
        starter.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        starter.arguments = [
            "-c",
            """
            import subprocess, sys, time
            child = subprocess.Popen(["/bin/sh", "-c", sys.argv[1], "t", "/bin/sh", "-c", sys.argv[2]],
                                     stdin=subprocess.PIPE, start_new_session=True)
            time.sleep(3600)
            """, ChildProcess.tether, "sleep \(mark) & sleep \(mark)",
        ]
        try starter.run()
        try eventually { try isAlive(mark) }
        kill(starter.processIdentifier, SIGKILL)
        try eventually { try !isAlive(mark) }
    }

    private func eventually(_ condition: () throws -> Bool) throws {
        for _ in 0..<200 {
            if try condition() { return }
            usleep(50_000)
        }
        Issue.record("it did not come about within ten seconds")
    }
}
