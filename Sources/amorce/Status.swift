import ArgumentParser
import BootSequence
import HostSystem

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say whether this front is ready, what it serves, and what went wrong last.",
        discussion: "Exit codes: 0 ready, 1 failed, 2 degraded, 3 never run in this boot, 4 running.")

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Print everything as JSON.") var json = false
    @Flag(help: "Wait until no run is under way.") var wait = false

    func run() throws {
        let stop = options.stopFlag()
        var status = try read()
        if wait {
            do {
                while status.state == .running {
                    try stop.sleep(.milliseconds(300))
                    status = try read()
                }
            } catch let reason as StopReason {
                throw ExitCode(ExitStatus(reason).code)
            }
        }
        if json { Output.json(status) } else if !options.quiet { show(status) }
        throw ExitCode(status.state.exitCode)
    }

    private func read() throws -> FrontStatus {
        do {
            return try FrontStatus.read(layout: options.layout)
        } catch {
            throw options.refusal(BootFailure(.recover, "reading the status", error))
        }
    }

    private func show(_ status: FrontStatus) {
        let style = TerminalStyle(hasColor: Output.isColored, hasUnicode: false)
        let width = Host.terminalWidth(descriptor: 1).map { $0 == 0 ? 80 : $0 }
        func line(_ text: String) {
            guard let width else { return Output.line(text) }
            for part in style.folded(text, to: width, indent: 12) { Output.line(part) }
        }
        guard let report = status.report else {
            return line("never run: amorce boot has not been run on this front")
        }
        line(headline(status, report, style))
        if let app = report.app, let environment = report.environment {
            line("  front:    \(app) in \(environment)" + (report.instance.map { ", instance \($0)" } ?? ""))
        }
        let started = UTCStamp(secondsSince1970: report.started).text
        line("  last run: \(report.command), \(started)" + (status.wasKilled ? ", cut off: its process is gone" : ""))
        if let data = report.dataTime, status.state != .failed {
            line("  data:     current as of \(Duration.seconds(max(0, Host.now - data)).spoken) ago")
        }
        if let degraded = report.degraded { line("  degraded: " + style.warn(degraded)) }
        let times = report.steps.filter { $0.state != .skipped }.map { step in
            "\(step.name.rawValue) \(Duration.milliseconds(Int64(step.seconds * 1000)).spoken)"
        }
        if !times.isEmpty { line("  steps:    " + times.joined(separator: ", ")) }
        for warning in report.warnings.suffix(5) { line("  warning:  " + Printable.text(warning)) }
        if let failure = report.failure {
            line("  failed:   \(failure.step.rawValue): \(failure.attempted)")
            for (index, problem) in failure.cause.split(separator: "\n").enumerated() {
                line((index == 0 ? "  why:      " : "            ") + problem)
            }
            if let advice = failure.advice { line("  next:     \(advice)") }
            line(
                "  again:    "
                    + (failure.retryCanHelp ? "the same run may succeed" : "the same run will fail the same way"))
        } else if status.wasKilled {
            line("  next:     run amorce boot again; it takes back what was half done")
        }
        if let aftermath = report.aftermath { line("  now:      \(aftermath)") }
        for release in status.releases.reversed() {
            line(
                "  release:  \(release.identifier)" + (release.isLive ? " (live)" : "")
                    + (release.backup.map { " from \(Printable.text($0))" } ?? ""))
        }
    }

    private func headline(_ status: FrontStatus, _ report: RunReport, _ style: TerminalStyle) -> String {
        let serves = report.release.map { ": release \($0) serves" } ?? ""
        switch status.state {
        case .ready: return style.good("ready") + serves
        case .degraded: return style.warn("degraded") + serves
        case .failed: return style.bad("failed") + (status.isReady ? serves + " as before" : "")
        case .running:
            return "running: " + (report.steps.last { $0.state == .running }.map { $0.name.rawValue } ?? report.command)
        case .neverRun: return "not run since this machine was started"
        }
    }
}
