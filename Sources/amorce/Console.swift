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
            let label = style.pending + " " + pad(step.rawValue)
            let room = (terminalWidth ?? 80) - 1 - style.columns(label)
            draw(label + ProgressLine(progress, state.rate.bytesPerSecond).drawn(style, room: room), &state)
        case .finished(let step, let duration, let summary):
            line(style.done, step, duration, summary, &state)
        case .skipped(let step, let why):
            if options.isVerbose { line(style.skipped, step, nil, why, &state) }
        case .failed(let step, let duration, let failure):
            // All of it follows when the run ends.
            let problems = failure.cause.split(separator: "\n")
            let more = problems.count > 1 ? " (and \(problems.count - 1) more)" : ""
            line(style.failed, step, duration, (problems.first ?? "") + more, &state)
        case .message(let level, let text):
            guard isShown(level) else { return }
            erase(&state)
            let mark = style.level(level) + " "
            putFolded(mark + text, indent: style.columns(mark))
        case .ended(let report):
            erase(&state)
            for text in closing(report) { putFolded(text, indent: Self.closingIndent) }
        }
    }

    private func line(_ mark: String, _ step: StepName, _ duration: Duration?, _ summary: String, _ state: inout Live) {
        erase(&state)
        state.step = nil
        if options.isQuiet && mark != style.failed { return }
        let label = mark + " " + pad(step.rawValue)
        // An amount and its unit stay on one line.
        let time = duration.map { "  " + style.dim($0.spoken.replacing(" ", with: "\u{A0}")) } ?? ""
        putFolded(label + summary + time, indent: style.columns(label))
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
            put("\(step.rawValue): \(ProgressLine(progress, state.rate.bytesPerSecond).words)")
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
            for line in text { putFolded(line, indent: Self.closingIndent) }
        }
    }

    private func isShown(_ level: LogLevel) -> Bool {
        level >= (options.isQuiet ? .error : options.isVerbose ? .detail : .notice)
    }

    private func pad(_ name: String) -> String { name + String(repeating: " ", count: max(1, 10 - name.count)) }

    /// Of what follows `why:` and `next:`.
    private static let closingIndent = 8

    /// A line for a terminal: broken between words, the rest indented. Elsewhere a line is a line.
    private func putFolded(_ text: String, indent: Int) {
        guard let terminalWidth else { return put(text) }
        for line in style.folded(text, to: terminalWidth, indent: indent) { put(line) }
    }

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
            (line.event, line.step, line.message) = ("finished", step.rawValue, summary)
            line.seconds = duration.inSeconds
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

/// What a progress says, in pieces of which the less important are left out where a line is short.
struct ProgressLine {
    private let share: Double?
    private let amount: String?
    private let files: String?
    private let rate: String?
    private let left: String?

    init(_ progress: Progress, _ bytesPerSecond: Double?) {
        let bytes = ByteCount(progress.bytes).description
        if let total = progress.totalBytes, total > 0 {
            share = min(1, Double(progress.bytes) / Double(total))
            amount = bytes + " of " + ByteCount(total).description
        } else {
            share = nil
            amount = progress.bytes > 0 ? bytes : nil
        }
        files = progress.items > 0 ? "\(progress.items) files" : nil
        rate = bytesPerSecond.map { ByteCount(Int64($0)).description + "/s" }
        if let total = progress.totalBytes, total > progress.bytes, let bytesPerSecond, bytesPerSecond > 0 {
            let seconds = (Double(total - progress.bytes) / bytesPerSecond).rounded(.up)
            left = (seconds < 60 ? "\(Int(seconds)) s" : Duration.seconds(seconds).spoken) + " left"
        } else {
            left = nil
        }
    }

    private var percent: String? { share.map { "\(Int($0 * 100)) %" } }

    /// For a log.
    var words: String { [percent, amount, files, rate, left].compactMap(\.self).joined(separator: ", ") }

    /// For a live line. What is shown depends on the room alone, not on the numbers, so that nothing comes and goes.
    func drawn(_ style: TerminalStyle, room: Int) -> String {
        // The columns that all, or all but the files, take with the longest of numbers.
        let isRoomy = room >= 82
        let isNarrow = room < 66
        var pieces = isNarrow ? [rate, left] : isRoomy ? [amount, files, rate, left] : [amount, rate, left]
        if let share, let percent {
            let bar = isNarrow ? "" : style.bar(share, width: room >= 92 ? 20 : 10) + " "
            pieces.insert(bar + String(repeating: " ", count: max(0, 5 - percent.count)) + percent, at: 0)
        }
        return pieces.compactMap(\.self).joined(separator: style.separator)
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

    var separator: String { hasUnicode ? " · " : ", " }

    func bar(_ share: Double, width: Int) -> String {
        let filled = Int(share * Double(width))
        let (full, empty) = hasUnicode ? ("█", "░") : ("#", ".")
        return String(repeating: full, count: filled) + String(repeating: empty, count: width - filled)
    }

    /// How many columns a text takes; escape sequences take none.
    func columns(_ text: String) -> Int { stripped(text).unicodeScalars.count }

    /// Lines of at most `width` columns, broken at spaces; all but the first are indented. A word that is longer stays whole, so
    /// that a path can be copied. A no-break space joins what belongs together, and is shown as a space.
    func folded(_ text: String, to width: Int, indent: Int) -> [String] {
        var lines: [String] = []
        var line = ""
        var gap = 0
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            if word.isEmpty {
                gap += 1
                continue
            }
            if columns(line) > indent && columns(line) + gap + columns(String(word)) > width {
                lines.append(line)
                line = String(repeating: " ", count: indent) + word
            } else {
                line += String(repeating: " ", count: gap) + word
            }
            gap = 1
        }
        return (lines + [line]).map { $0.replacing("\u{A0}", with: " ") }
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
