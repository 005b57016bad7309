/// What a name in a template stands for. Text is bytes: nothing here decodes or re-encodes it.
public indirect enum TemplateValue: Sendable {
    case null
    case boolean(Bool)
    /// `isSecret` marks the places of the rendered text that must not be shown (`RenderedText.secretRanges`).
    case text([UInt8], isSecret: Bool)
    case list([TemplateValue])
    case map([String: TemplateValue])

    /// Text that may be shown.
    public static func string(_ text: String) -> TemplateValue { .text(Array(text.utf8), isSecret: false) }

    /// Whether `{{#name}}` renders its content: null, false, empty text and an empty list do not. A map always does.
    var isTruthy: Bool {
        switch self {
        case .null: false
        case .boolean(let value): value
        case .text(let bytes, _): !bytes.isEmpty
        case .list(let items): !items.isEmpty
        case .map: true
        }
    }
}
