import BootSequence
import FoundationEssentials
import HostSystem
import Synchronization

/// Shows a run on stderr as it goes, and keeps its lines in the log file: a live line per step on a terminal, plain lines
/// elsewhere, JSON lines when asked. Safe from any thread.
final class Console: Sendable {
    enum Format: String, Sendable, CaseIterable {
        case text, json
    }

    struct Options: Sendable {
        var format = Format.text
        var isVerbose = false
        var isQuiet = false
        /// Nil: nothing is written to a file (commands that change nothing).
        var logFile: String?
    }

    private struct Live {
        var step: StepName?
        var begun = ContinuousClock.now
        var drawn = ContinuousClock.now
        var isDrawn = false
        var rate = RateMeter()
    }

    private let options: Options
    private let terminalWidth: Int?
    private let style: TerminalStyle
    private let live = Mutex(Live())

    init(_ options: Options) {
        self.options = options
        let environment = Host.environment()
        let width = options.format == .text && environment["TERM"] != "dumb" ? Host.terminalWidth(descriptor: 2) : nil
        terminalWidth = width.map { $0 == 0 ? 80 : $0 }
        style = TerminalStyle(
            hasColor: width != nil && (environment["NO_COLOR"] ?? "").isEmpty,
            hasUnicode: ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap { environment[$0] }.first { !$0.isEmpty }?
                .uppercased().contains("UTF") ?? false)
    }

    func show(_ event: RunEvent) {
        writeLog(event)
        switch options.format {
        case .json: writeJSON(event)
        case .text: live.withLock { terminalWidth == nil ? showPlain(event, &$0) : showLive(event, &$0) }
        }
    }

    // MARK: terminal

    private func showLive(_ event: RunEvent, _ state: inout Live) {
        switch event {
        case .started(let step):
            state = Live(step: step)
            if !options.isQuiet { draw(style.pending + " " + pad(step.rawValue), &state) }
        case .progress(let step, let progress):
            let now = ContinuousClock.now
            state.rate.add(progress.bytes, at: now)
            guard !options.isQuiet, step == state.step, now - state.drawn > .milliseconds(80) else { return }
            state.drawn = now
            draw(style.pending + " " + pad(step.rawValue) + bar(progress, state), &state)
        case .finished(let step, let duration, let summary):
            line(style.done, step, duration, summary, &state)
        case .skipped(let step, let why):
            if options.isVerbose { line(style.skipped, step, nil, why, &state) }
        case .failed(let step, let duration, let failure):
            line(style.failed, step, duration, failure.cause, &state)
        case .message(let level, let text):
            guard isShown(level) else { return }
            erase(&state)
            put(style.level(level) + " " + text)
        case .ended(let report):
            erase(&state)
            for text in closing(report) { put(text) }
        }
    }

    private func line(_ mark: String, _ step: StepName, _ duration: Duration?, _ summary: String, _ state: inout Live) {
        erase(&state)
        state.step = nil
        if options.isQuiet && mark != style.failed { return }
        let time = duration.map { style.dim($0.spoken) } ?? ""
        put(mark + " " + pad(step.rawValue) + summary + (time.isEmpty ? "" : "  " + time))
    }

    private func draw(_ text: String, _ state: inout Live) {
        let width = terminalWidth ?? 80
        Host.write(Array(("\r\u{1B}[K" + style.cut(text, to: width - 1)).utf8), descriptor: 2)
        state.isDrawn = true
    }

    private func erase(_ state: inout Live) {
        if state.isDrawn { Host.write(Array("\r\u{1B}[K".utf8), descriptor: 2) }
        state.isDrawn = false
    }

    private func bar(_ progress: Progress, _ state: Live) -> String {
        var parts: [String] = []
        if let total = progress.totalBytes, total > 0 {
            let share = min(1, Double(progress.bytes) / Double(total))
            parts.append(style.bar(share) + " \(Int(share * 100)) %")
            parts.append("\(ByteCount(progress.bytes)) of \(ByteCount(total))")
        } else if progress.bytes > 0 {
            parts.append("\(ByteCount(progress.bytes))")
        }
        if progress.items > 0 { parts.append("\(progress.items) files") }
        if let rate = state.rate.bytesPerSecond {
            parts.append("\(ByteCount(Int64(rate)))/s")
            if let total = progress.totalBytes, rate > 0, total > progress.bytes {
                parts.append(Duration.seconds((Double(total - progress.bytes) / rate).rounded(.up)).spoken + " left")
            }
        }
        return parts.joined(separator: " · ")
    }

    // MARK: plain lines

    private func showPlain(_ event: RunEvent, _ state: inout Live) {
        switch event {
        case .started(let step): state = Live(step: step)
        case .progress(let step, let progress):
            let now = ContinuousClock.now
            state.rate.add(progress.bytes, at: now)
            // One line in ten seconds: a console log of a long restore shows that it lives, and no more.
            guard !options.isQuiet, now - state.drawn > .seconds(10) else { return }
            state.drawn = now
            put("\(step.rawValue): \(bar(progress, state))")
        default:
            for (level, text) in plainLines(event) where isShown(level) { put(text) }
        }
    }

    /// The one wording of every event that is a line: used by the plain screen and the log file alike.
    private func plainLines(_ event: RunEvent) -> [(LogLevel, String)] {
        switch event {
        case .started(let step): [(.detail, "\(step.rawValue): started")]
        case .progress: []
        case .finished(let step, let duration, let summary):
            [(.notice, "\(step.rawValue): \(summary) (\(duration.spoken))")]
        case .skipped(let step, let why): [(.detail, "\(step.rawValue): skipped: \(why)")]
        case .failed(let step, let duration, let failure):
            [(.error, "\(step.rawValue): failed after \(duration.spoken): \(failure.attempted): \(failure.cause)")]
        case .message(let level, let text):
            [(level, level >= .warning ? "\(level.name): \(text)" : text)]
        case .ended(let report): closing(report).map { (report.outcome == .failed ? .error : .notice, $0) }
        }
    }

    private func closing(_ report: RunReport) -> [String] {
        let spoken = Duration.milliseconds(Int64(report.seconds * 1000)).spoken
        let release = report.release.map { " release \($0)" } ?? ""
        switch report.outcome {
        case .running: return []
        case .ready:
            return [style.good("ready") + ":\(release) serves, \(report.command) took \(spoken)"]
        case .degraded:
            return [
                style.warn("degraded") + ":\(release) serves, \(report.command) took \(spoken)",
                "  " + (report.degraded ?? ""),
            ]
        case .failed:
            guard let failure = report.failure else { return [style.bad("failed")] }
            return lines(
                step: failure.step, attempted: failure.attempted, cause: failure.cause, advice: failure.advice,
                aftermath: report.aftermath)
        }
    }

    private func lines(
        step: StepName, attempted: String, cause: String, advice: String?, aftermath: String?
    ) -> [String] {
        var lines = [style.bad("failed") + " at \(step.rawValue): \(attempted)"]
        // Many problems are one line each.
        lines += cause.split(separator: "\n").enumerated().map {
            ($0.offset == 0 ? "  why:  " : "        ") + $0.element
        }
        if let advice { lines.append("  next: \(advice)") }
        if let aftermath { lines.append("  now:  \(aftermath)") }
        return lines
    }

    /// A command that changes nothing has no run to report: its failure is shown alone.
    func show(failure: BootFailure) {
        switch options.format {
        case .json: show(.failed(failure.step, .zero, failure))
        case .text:
            let text = lines(
                step: failure.step, attempted: failure.attempted, cause: failure.cause, advice: failure.advice,
                aftermath: failure.aftermath)
            for line in text { put(line) }
        }
    }

    private func isShown(_ level: LogLevel) -> Bool {
        level >= (options.isQuiet ? .error : options.isVerbose ? .detail : .notice)
    }

    private func pad(_ name: String) -> String { name + String(repeating: " ", count: max(1, 10 - name.count)) }

    private func put(_ text: String) { Host.write(Array((text + "\n").utf8), descriptor: 2) }

    // MARK: log file and JSON

    private func writeLog(_ event: RunEvent) {
        guard let path = options.logFile else { return }
        let stamp = UTCStamp(secondsSince1970: Host.now).text
        let plain = TerminalStyle(hasColor: false, hasUnicode: true)
        let lines = plainLines(event).map { "\(stamp) \($0.0.name) \(plain.stripped($0.1))\n" }
        if lines.isEmpty { return }
        // Opened for each line: logrotate may move the file at any time. A log that cannot be written stops nothing.
        try? AtomicFile.append(Array(lines.joined().utf8), to: path, mode: 0o640)
    }

    private struct JSONLine: Encodable {
        var time: String
        var level: String
        var event: String
        var step: String?
        var seconds: Double?
        var message: String?
        var bytes: Int64?
        var totalBytes: Int64?
        var files: Int?
        var advice: String?
        var exitCode: Int32?
        var outcome: String?
        var release: String?
    }

    private func writeJSON(_ event: RunEvent) {
        var line = JSONLine(time: UTCStamp(secondsSince1970: Host.now).text, level: "notice", event: "message")
        switch event {
        case .started(let step): (line.event, line.step) = ("started", step.rawValue)
        case .progress(let step, let progress):
            let isDue = live.withLock { state in
                let now = ContinuousClock.now
                guard now - state.drawn > .seconds(1) else { return false }
                state.drawn = now
                return true
            }
            guard isDue else { return }
            (line.event, line.step) = ("progress", step.rawValue)
            (line.bytes, line.totalBytes, line.files) = (progress.bytes, progress.totalBytes, progress.items)
        case .finished(let step, let duration, let summary):
            (line.event, line.step, line.seconds, line.message) = (
                "finished", step.rawValue, duration.inSeconds, summary
            )
        case .skipped(let step, let why): (line.event, line.step, line.message) = ("skipped", step.rawValue, why)
        case .failed(let step, let duration, let failure):
            (line.level, line.event, line.step) = ("error", "failed", step.rawValue)
            (line.seconds, line.message, line.advice) = (duration.inSeconds, failure.cause, failure.advice)
            line.exitCode = failure.status.code
        case .message(let level, let text):
            if !isShown(level) { return }
            (line.level, line.message) = (level.name, text)
        case .ended(let report):
            (line.event, line.outcome, line.release) = ("ended", report.outcome.rawValue, report.release)
            line.exitCode = report.failure?.exitCode ?? 0
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(line) else { return }
        Host.write(Array(bytes) + [0x0a], descriptor: 2)
    }
}

/// Bytes per second over the last few seconds.
struct RateMeter {
    private var samples: [(at: ContinuousClock.Instant, bytes: Int64)] = []

    mutating func add(_ bytes: Int64, at now: ContinuousClock.Instant) {
        if let last = samples.last, now - last.at < .milliseconds(200) { return }
        samples.append((now, bytes))
        if samples.count > 25 { samples.removeFirst() }
    }

    var bytesPerSecond: Double? {
        guard let first = samples.first, let last = samples.last, last.at - first.at > .milliseconds(300) else {
            return nil
        }
        return max(0, Double(last.bytes - first.bytes)) / (last.at - first.at).inSeconds
    }
}

/// Marks and colours, or plain words where the terminal or the person wants none.
struct TerminalStyle: Sendable {
    let hasColor: Bool
    let hasUnicode: Bool

    private func paint(_ text: String, _ code: String) -> String { hasColor ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text }
    func good(_ text: String) -> String { paint(text, "32") }
    func warn(_ text: String) -> String { paint(text, "33") }
    func bad(_ text: String) -> String { paint(text, "31") }
    func dim(_ text: String) -> String { paint(text, "2") }

    var done: String { good(hasUnicode ? "✓" : "ok") }
    var failed: String { bad(hasUnicode ? "✗" : "!!") }
    var pending: String { dim(hasUnicode ? "·" : "..") }
    var skipped: String { dim(hasUnicode ? "–" : "--") }

    func level(_ level: LogLevel) -> String {
        switch level {
        case .detail, .notice: dim(hasUnicode ? "·" : "..")
        case .warning: warn(hasUnicode ? "!" : "! ")
        case .error: bad(hasUnicode ? "✗" : "!!")
        }
    }

    func bar(_ share: Double) -> String {
        let filled = Int(share * 20)
        let (full, empty) = hasUnicode ? ("█", "░") : ("#", ".")
        return String(repeating: full, count: filled) + String(repeating: empty, count: 20 - filled)
    }

    /// At most `width` columns; escape sequences take none.
    func cut(_ text: String, to width: Int) -> String {
        var result = ""
        var columns = 0
        var isEscape = false
        for scalar in text.unicodeScalars {
            if scalar == "\u{1B}" { isEscape = true }
            if !isEscape {
                if columns >= width { break }
                columns += 1
            }
            result.unicodeScalars.append(scalar)
            if isEscape && scalar == "m" { isEscape = false }
        }
        return result + (hasColor ? "\u{1B}[0m" : "")
    }

    /// Without escape sequences.
    func stripped(_ text: String) -> String {
        var result = ""
        var isEscape = false
        for scalar in text.unicodeScalars {
            if scalar == "\u{1B}" { isEscape = true }
            if !isEscape { result.unicodeScalars.append(scalar) }
            if isEscape && scalar == "m" { isEscape = false }
        }
        return result
    }
}
