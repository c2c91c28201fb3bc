package midas

// What external tests reach inside for.
var (
	ValidateItems = validateItems
	ParsePayItems = parsePayItems
	SplitAppMeta  = splitAppMeta
)

func EncodePayItems(items []Item) string { return payItems(items).String() }

func DecodeOrderAnswer(body []byte) (ret int, token, urlParams string, err error) {
	answer, err := decodeOrderAnswer(body)
	if err != nil {
		return 0, "", "", err
	}
	return int(*answer.Ret), answer.Token, answer.URLParams, nil
}

// SplitQuery returns a raw query's parameters in signing order.
func SplitQuery(rawQuery string, plus byte) (names, values []string, err error) {
	params, err := splitQuery(nil, rawQuery, plus)
	for _, p := range params {
		names, values = append(names, p.name), append(values, p.value)
	}
	return names, values, err
}

// Verify reports whether a raw query is verified, for a path that New would not take.
func Verify(rawQuery, path, appKey string) bool {
	c := &Client{cfg: Config{DeliveryPath: path}, appKey: func() string { return appKey }}
	_, err := c.verify(nil, rawQuery)
	return err == nil
}
