internal import HostSystem

/// Takes known secrets out of text from outside: the last net below the rule that nobody puts one in. A secret is found as it
/// is, as HTML spells it, and cut off after 15 characters, as PHP's stack traces show arguments.
struct Redaction {
    private var words: [String] = []
    static let mark = "(secret)"
    /// A shorter secret would be found in innocent words.
    private static let least = 4

    mutating func add(_ secrets: [Secret]) {
        for text in secrets.compactMap(\.revealedText) where text.count >= Self.least {
            for form in [text, Self.html(text), Self.html(text, quote: "&#39;")] {
                words.append(form)
                if text.count > 15 { words.append(String(form.prefix(15))) }
            }
        }
        // The longest first, so that no rest of one is left beside a mark.
        words = Array(Set(words)).sorted { ($0.count, $0) > ($1.count, $1) }
    }

    func apply(_ text: String) -> String {
        var result = text
        for word in words where result.contains(word) { result = result.replacing(word, with: Self.mark) }
        return result
    }

    private static func html(_ text: String, quote: String = "&#039;") -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;").replacing("'", with: quote)
    }
}
