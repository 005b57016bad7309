/// What `{{! amorce: language=php mode=0640 owner=root:www-data }}` says about the rendered file.
struct TemplateHeader: Sendable {
    private(set) var language: TargetLanguage?
    private(set) var mode: UInt32?
    private(set) var owner: String?

    mutating func parse(_ text: some StringProtocol, problem: (String) -> Void) {
        var seen: Set<String> = []
        for word in text.split(whereSeparator: { $0.isWhitespace }) {
            let pieces = String(word).split(separator: Character("="), maxSplits: 1, omittingEmptySubsequences: false)
                .map(String.init)
            guard pieces.count == 2 else {
                problem("header: \"\(word)\" is not KEY=VALUE")
                continue
            }
            if !seen.insert(pieces[0]).inserted { problem("header: \(pieces[0]) stands twice") }
            switch pieces[0] {
            case "language": parseLanguage(pieces[1], problem)
            case "mode": parseMode(pieces[1], problem)
            case "owner": parseOwner(pieces[1], problem)
            default:
                problem(
                    "header: unknown key \"\(pieces[0])\""
                        + Spelling.hint(for: pieces[0], among: ["language", "mode", "owner"]))
            }
        }
    }

    private mutating func parseLanguage(_ value: String, _ problem: (String) -> Void) {
        language = TargetLanguage(rawValue: value)
        if language == nil {
            let names = TargetLanguage.allCases.map(\.rawValue)
            problem(
                "header: unknown language \"\(value)\"" + Spelling.hint(for: value, among: names)
                    + "; known are " + names.joined(separator: ", "))
        }
    }

    private mutating func parseMode(_ value: String, _ problem: (String) -> Void) {
        let digits = value.utf8
        // Without special bits: no configuration file is setuid.
        guard digits.count == 3 || (digits.count == 4 && digits.first == UInt8(ascii: "0")), let mode = UInt32(value, radix: 8)
        else {
            problem("header: mode=\(value) is not an octal mode such as 0640")
            return
        }
        self.mode = mode
    }

    private mutating func parseOwner(_ value: String, _ problem: (String) -> Void) {
        let names = value.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard names.count == 2, names.allSatisfy({ !$0.isEmpty && $0.consists(ofWordsAnd: ".-") }) else {
            problem("header: owner=\(value) is not USER:GROUP")
            return
        }
        owner = value
    }
}
